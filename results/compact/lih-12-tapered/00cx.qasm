OPENQASM 3.0;
include "stdgates.inc";
qubit[8] q;
rx(3.141592653589793) q[0];
rx(3.141592653589793) q[5];
