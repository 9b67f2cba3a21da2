OPENQASM 3.0;
include "stdgates.inc";
qubit[2] q;
ry(-2.915456338526818) q[1];
cx q[1], q[0];
rx(3.1415926117166264) q[1];
