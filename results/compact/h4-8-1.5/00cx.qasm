OPENQASM 3.0;
include "stdgates.inc";
qubit[8] q;
x q[0];
x q[1];
x q[4];
x q[5];
