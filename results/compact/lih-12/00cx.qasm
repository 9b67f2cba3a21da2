OPENQASM 3.0;
include "stdgates.inc";
qubit[12] q;
x q[0];
x q[1];
x q[6];
x q[7];
