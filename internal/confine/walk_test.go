package confine

import (
	"testing"

	"golang.org/x/net/bpf"
)

// allowedUnseen walks through the filter as the kernel does when a filter is put in
// force (seccomp_is_const_allow): the architecture and the number are known, and
// whoever looks at anything else is not known to be allowed.
func allowedUnseen(t *testing.T, program []bpf.Instruction, nr uint32) bool {
	t.Helper()
	var acc uint32
	for i := 0; i < len(program); i++ {
		switch in := program[i].(type) {
		case bpf.LoadAbsolute:
			switch in.Off {
			case 0:
				acc = nr
			case 4:
				acc = auditArch
			default:
				return false
			}
		case bpf.JumpIf:
			met := map[bpf.JumpTest]bool{bpf.JumpEqual: acc == in.Val, bpf.JumpNotEqual: acc != in.Val, bpf.JumpBitsSet: acc&in.Val != 0, bpf.JumpBitsNotSet: acc&in.Val == 0}[in.Cond]
			if met {
				i += int(in.SkipTrue)
			} else {
				i += int(in.SkipFalse)
			}
		case bpf.RetConstant:
			return in == yes
		default:
			t.Fatalf("instruction %d: %T", i, in)
		}
	}
	t.Fatal("the filter has no end")
	return false
}
