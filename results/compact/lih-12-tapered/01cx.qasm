OPENQASM 3.0;
include "stdgates.inc";
qubit[8] q;
ry(3.1415882447787062) q[5];
ry(-0.036307555479516807) q[1];
cx q[1], q[6];
ry(3.1415890018308366) q[0];
