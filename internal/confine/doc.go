// Package confine makes a process of ours nobody, before it reads what strangers
// send: an empty root directory, a uid of its own, no group, no capability, no new
// privileges, no core dump or ptrace, small limits, and a short list of system
// calls (seccomp(2)). Each holds without the others.
package confine
