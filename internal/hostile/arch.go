package hostile

// These doors are those of one kind of processor; elsewhere there are none.
var archRows = []Row{
	{
		"32-bit-calls", "the kernel", "makes system calls by the door of 32-bit programs, with numbers that a filter may not know",
		"seccomp: no other architecture", call32,
	},
	{
		"x32-calls", "the kernel", "makes system calls with the numbers of x32",
		"seccomp: no other architecture", callX32,
	},
	{
		"hardware-ports", "the kernel", "speaks to the hardware by its ports (ioperm, iopl)",
		privileged, hardwarePorts,
	},
}
