package seccomp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// question is one system call as a filter sees it.
type question struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

func ask(name string, args ...uint64) question {
	q := question{arch: auditArch}
	for _, c := range numbers {
		if c.name == name {
			q.nr = c.nr
			copy(q.args[:], args)
			return q
		}
	}
	panic("no system call " + name)
}

// vm runs what Compile made. The interpreter reads words in network order.
func vm(t testing.TB, w Wish) func(q question) uint32 {
	t.Helper()
	compiled, err := Compile(w)
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for raw := range slices.Chunk(compiled, instructionSize) {
		program = append(program, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(raw), Jt: raw[2], Jf: raw[3], K: binary.NativeEndian.Uint32(raw[4:]),
		}.Disassemble())
	}
	machine, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return func(q question) uint32 {
		data := make([]byte, offsetArgs+6*argSize)
		binary.BigEndian.PutUint32(data[offsetNumber:], q.nr)
		binary.BigEndian.PutUint32(data[offsetArch:], q.arch)
		for i, a := range q.args {
			binary.BigEndian.PutUint32(data[offsetArgs+i*argSize:], uint32(a))
			binary.BigEndian.PutUint32(data[offsetArgs+i*argSize+4:], uint32(a>>32))
		}
		n, err := machine.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(n)
	}
}

func errno(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func TestWhatAnAppMayCall(t *testing.T) {
	for _, c := range []struct {
		name string
		wish Wish
		q    question
		want uint32
	}{
		{"reading", Wish{}, ask("read"), allow},
		{"a thread", Wish{}, ask("clone", unix.CLONE_THREAD|unix.CLONE_VM|unix.CLONE_SIGHAND), allow},
		{"a process", Wish{}, ask("clone", uint64(unix.SIGCHLD)), allow},
		{"a user namespace", Wish{}, ask("clone", unix.CLONE_NEWUSER|uint64(unix.SIGCHLD)), deny},
		{"a user namespace by unshare", Wish{}, ask("unshare", unix.CLONE_NEWUSER), deny},
		{"with the right to", Wish{Caps: []string{"sys_admin"}}, ask("unshare", unix.CLONE_NEWUSER), allow},
		{"flags that are hidden in memory", Wish{}, ask("clone3"), nosys},
		{"mounting", Wish{}, ask("mount"), deny},
		{"mounting by the new calls", Wish{}, ask("open_tree"), deny},
		{"a module", Wish{}, ask("finit_module"), deny},
		{"another root", Wish{}, ask("chroot"), deny},
		{"another root with the right to", Wish{Caps: []string{"sys_chroot"}}, ask("chroot"), allow},
		{"keys", Wish{}, ask("keyctl"), deny},
		{"bpf", Wish{}, ask("bpf"), deny},
		{"io_uring", Wish{}, ask("io_uring_setup"), deny},
		{"a file by its handle", Wish{}, ask("open_by_handle_at"), deny},
		{"a debugger", Wish{}, ask("ptrace"), allow},
		{"a debugger, strictly", Wish{Strict: true}, ask("ptrace"), deny},
		{"typing for others", Wish{}, ask("ioctl", 0, unix.TIOCSTI), deny},
		{"typing for others with more bits than the kernel reads", Wish{}, ask("ioctl", 0, 1<<32|unix.TIOCSTI), deny},
		{"the console's selection", Wish{}, ask("ioctl", 0, unix.TIOCLINUX), deny},
		{"the size of a terminal", Wish{}, ask("ioctl", 0, unix.TIOCGWINSZ), allow},
		{"a socket", Wish{}, ask("socket", unix.AF_INET, unix.SOCK_STREAM), allow},
		{"a socket of the hypervisor's", Wish{}, ask("socket", unix.AF_VSOCK), deny},
		{"the same with more bits than the kernel reads", Wish{}, ask("socket", 1<<32|unix.AF_VSOCK), deny},
		{"the kernel's cryptography", Wish{}, ask("socket", unix.AF_ALG), deny},
		{"Bluetooth", Wish{}, ask("socket", unix.AF_BLUETOOTH), allow},
		{"Bluetooth, strictly", Wish{Strict: true}, ask("socket", unix.AF_BLUETOOTH), deny},
		{"the list of addresses, strictly", Wish{Strict: true}, ask("socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE), allow},
		{"audit, strictly", Wish{Strict: true}, ask("socket", unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT), deny},
		{"Multipath TCP", Wish{}, ask("socket", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), allow},
		{"Multipath TCP where ports are counted", Wish{Counted: true}, ask("socket", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP), errno(unix.EPROTONOSUPPORT)},
		{"SMC, which becomes TCP, where ports are counted", Wish{Counted: true}, ask("socket", unix.AF_SMC, unix.SOCK_STREAM), errno(unix.EPROTONOSUPPORT)},
		{"the same as a protocol", Wish{Counted: true}, ask("socket", unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_SMC), errno(unix.EPROTONOSUPPORT)},
		{"TCP where ports are counted", Wish{Counted: true}, ask("socket", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP), allow},
		{"a call that nobody knows yet", Wish{}, question{nr: newest() + 1, arch: auditArch}, nosys},
		{"another table of numbers", Wish{}, question{nr: 1 << 30, arch: auditArch}, nosys},
		{"another architecture", Wish{}, question{nr: 0, arch: unix.AUDIT_ARCH_I386}, unix.SECCOMP_RET_KILL_PROCESS},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := vm(t, c.wish)(c.q); got != c.want {
				t.Errorf("%d%v is answered with %#x, want %#x", c.q.nr, c.q.args, got, c.want)
			}
		})
	}
}

// naive is what the rules say, word by word.
func naive(all []rule, q question) uint32 {
	for _, r := range all {
		if r.nr != q.nr {
			continue
		}
		for _, w := range r.ways {
			if !slices.ContainsFunc(w.conditions, func(c condition) bool { return !c.holds(q.args[c.arg]) }) {
				return w.action
			}
		}
	}
	return deny
}

func (c condition) holds(arg uint64) bool {
	if c.narrow {
		arg = uint64(uint32(arg))
	}
	switch c.op {
	case specs.OpEqualTo:
		return arg == c.value
	case specs.OpNotEqual:
		return arg != c.value
	case specs.OpMaskedEqual:
		return arg&c.value == c.second
	case specs.OpGreaterThan:
		return arg > c.value
	case specs.OpGreaterEqual:
		return arg >= c.value
	case specs.OpLessThan:
		return arg < c.value
	case specs.OpLessEqual:
		return arg <= c.value
	}
	panic(c.op)
}

// Each comparison, whether or not the list has it today, on arguments around
// its value.
func TestComparisons(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{
		specs.OpEqualTo, specs.OpNotEqual, specs.OpMaskedEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual,
	}
	random := rand.New(rand.NewPCG(1, 2))
	values := []uint64{0, 1, 5, 1<<32 - 1, 1 << 32, 1<<32 + 5, 1<<63 + 7, 1<<64 - 1}
	for _, op := range ops {
		for _, narrow := range []bool{false, true} {
			if narrow && op == specs.OpMaskedEqual {
				continue
			}
			for _, value := range values {
				if narrow {
					value = uint64(uint32(value))
				}
				c := condition{arg: uint(random.IntN(6)), op: op, value: value, second: value & values[random.IntN(len(values))], narrow: narrow}
				code := append(c.code(1), bpf.RetConstant{Val: 1}, bpf.RetConstant{Val: 0})
				machine, err := bpf.NewVM(code)
				if err != nil {
					t.Fatal(err)
				}
				for _, near := range values {
					for _, arg := range []uint64{near - 1, near, near + 1, value - 1, value, value + 1, c.second, value ^ 1<<32} {
						data := make([]byte, offsetArgs+6*argSize)
						off := offsetArgs + c.arg*argSize
						binary.BigEndian.PutUint32(data[off:], uint32(arg))
						binary.BigEndian.PutUint32(data[off+4:], uint32(arg>>32))
						if got, _ := machine.Run(data); (got == 1) != c.holds(arg) {
							t.Errorf("%s %#x (%#x), narrow %v: of %#x it says %d", op, c.value, c.second, narrow, arg, got)
						}
					}
				}
			}
		}
	}
}

// The compiled filter says what the rules say.
func TestFilterSaysWhatTheRulesSay(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	interesting := []uint64{0, 8, 0x20000, 0x20008, 0xffffffff, unix.AF_ALG, unix.AF_ALG + 1, unix.AF_VSOCK, unix.TIOCSTI, unix.CLONE_NEWUSER, 1<<32 | unix.AF_VSOCK}
	for _, w := range []Wish{{}, {Strict: true}, {Counted: true}, {Caps: []string{"sys_admin", "net_admin"}}} {
		all, err := rules(w)
		if err != nil {
			t.Fatal(err)
		}
		machine := vm(t, w)
		for _, c := range numbers {
			for range 50 {
				q := question{nr: c.nr, arch: auditArch}
				for i := range q.args {
					if q.args[i] = random.Uint64(); random.IntN(2) == 0 {
						q.args[i] = interesting[random.IntN(len(interesting))]
					}
				}
				if got, want := machine(q), naive(all, q); got != want {
					t.Fatalf("%+v: %s%#x is answered with %#x, want %#x", w, c.name, q.args, got, want)
				}
			}
		}
	}
}

// The kernel takes no program that is longer.
func TestFilterFits(t *testing.T) {
	program, err := Compile(Wish{Strict: true, Counted: true})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(program) / instructionSize; n > 4096/2 {
		t.Errorf("the filter has %d instructions", n)
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(Wish{}); err != nil {
			b.Fatal(err)
		}
	}
}
