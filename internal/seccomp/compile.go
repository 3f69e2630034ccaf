package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where the kernel's struct seccomp_data has what a filter looks at.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
	argSize      = 8
)

// instructionSize is that of the kernel's struct sock_filter.
const instructionSize = 8

// Compile makes the program of a wish, as the bytes that the kernel takes.
func Compile(w Wish) ([]byte, error) {
	all, err := rules(w)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	raw, err := bpf.Assemble(program(all))
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	out := make([]byte, 0, len(raw)*instructionSize)
	for _, r := range raw {
		out = binary.NativeEndian.AppendUint16(out, r.Op)
		out = append(out, r.Jt, r.Jf)
		out = binary.NativeEndian.AppendUint32(out, r.K)
	}
	return out, nil
}

// program looks at the architecture, then at the calls with conditions, then at
// the ranges of numbers that are allowed whatever their arguments are.
func program(all []rule) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, // its numbers mean something else
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
		// A call that is newer than the list, or of another table (x32): programs
		// do without it then, which they would not after EPERM.
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: newest(), SkipTrue: 1},
		bpf.RetConstant{Val: nosys},
	}
	var plain []uint32
	for _, r := range all {
		if slices.ContainsFunc(r.ways, func(w way) bool { return w.action == allow && len(w.conditions) == 0 }) && !refusesSome(r) {
			plain = append(plain, r.nr)
			continue
		}
		p = append(p, r.block()...)
	}
	for i := 0; i < len(plain); {
		last := i
		for last+1 < len(plain) && plain[last+1] == plain[last]+1 {
			last++
		}
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: plain[last], SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: plain[i], SkipTrue: 1},
			bpf.RetConstant{Val: deny}, // the ranges ascend
			bpf.RetConstant{Val: allow},
		)
		i = last + 1
	}
	return append(p, bpf.RetConstant{Val: deny})
}

func newest() (nr uint32) {
	for _, c := range numbers {
		nr = max(nr, c.nr)
	}
	return nr
}

func refusesSome(r rule) bool {
	return slices.ContainsFunc(r.ways, func(w way) bool { return w.action != allow })
}

// block decides about one call; the number is in the register before and, for
// other calls, after it.
func (r rule) block() []bpf.Instruction {
	var inner []bpf.Instruction
	for _, w := range r.ways {
		inner = append(inner, w.code()...)
	}
	inner = append(inner, bpf.RetConstant{Val: deny})
	return append([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.nr, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(inner))},
	}, inner...)
}

// code returns the way's action, or goes on behind itself.
func (w way) code() []bpf.Instruction {
	code := []bpf.Instruction{bpf.RetConstant{Val: w.action}}
	for _, c := range slices.Backward(w.conditions) {
		code = append(c.code(uint32(len(code))), code...)
	}
	return code
}

// comparisons are those of one word; of the upper one where both are not equal.
var comparisons = map[specs.LinuxSeccompOperator]struct{ low, high bpf.JumpTest }{
	specs.OpGreaterThan:  {bpf.JumpGreaterThan, bpf.JumpGreaterThan},
	specs.OpGreaterEqual: {bpf.JumpGreaterOrEqual, bpf.JumpGreaterThan},
	specs.OpLessThan:     {bpf.JumpLessThan, bpf.JumpLessThan},
	specs.OpLessEqual:    {bpf.JumpLessOrEqual, bpf.JumpLessThan},
}

// code goes on where the condition holds, and skips what follows where it does
// not. The words of an argument are compared one after the other, as filters
// have 32 bits; both architectures have the lower one first.
func (c condition) code(skip uint32) []bpf.Instruction {
	low, high := uint32(c.value), uint32(c.value>>32)
	off := offsetArgs + uint32(c.arg)*argSize
	loadLow, loadHigh := bpf.LoadAbsolute{Off: off, Size: 4}, bpf.LoadAbsolute{Off: off + 4, Size: 4}
	fail := bpf.Jump{Skip: skip}
	switch {
	case c.op == specs.OpMaskedEqual:
		return []bpf.Instruction{
			loadHigh,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: high},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(c.second >> 32), SkipTrue: 3},
			loadLow,
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: low},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(c.second), SkipTrue: 1},
			fail,
		}
	case c.op == specs.OpEqualTo && c.narrow:
		return []bpf.Instruction{loadLow, bpf.JumpIf{Cond: bpf.JumpEqual, Val: low, SkipTrue: 1}, fail}
	case c.op == specs.OpNotEqual && c.narrow:
		return []bpf.Instruction{loadLow, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: low, SkipTrue: 1}, fail}
	case c.narrow:
		return []bpf.Instruction{loadLow, bpf.JumpIf{Cond: comparisons[c.op].low, Val: low, SkipTrue: 1}, fail}
	case c.op == specs.OpEqualTo:
		return []bpf.Instruction{
			loadHigh,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: high, SkipTrue: 2},
			loadLow,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: low, SkipTrue: 1},
			fail,
		}
	case c.op == specs.OpNotEqual:
		return []bpf.Instruction{
			loadHigh,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: high, SkipTrue: 3},
			loadLow,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: low, SkipTrue: 1},
			fail,
		}
	}
	by := comparisons[c.op]
	return []bpf.Instruction{
		loadHigh,
		bpf.JumpIf{Cond: by.high, Val: high, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: high, SkipTrue: 2},
		loadLow,
		bpf.JumpIf{Cond: by.low, Val: low, SkipTrue: 1},
		fail,
	}
}
