package confine

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The processes that the tests start of themselves. Each tries what its table
// has, says how that ended, a line each, and stays until its input ends.
const (
	givenProcess  = "given"
	dialsProcess  = "dials"
	rootedProcess = "rooted" // has nothing but the empty root directory, and another uid
)

const testUID = 65519

// freeSocket is a unix socket that such a process is given, bound and connected
// to nothing.
const freeSocket = 3

func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		if try := map[string]func(string) error{givenProcess: playGiven, dialsProcess: playDials, rootedProcess: playRooted}[os.Args[1]]; try != nil {
			if err := try(os.Args[2]); err != nil {
				fmt.Println("confine:", err)
				os.Exit(1)
			}
			fmt.Println("end")
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func playGiven(socket string) error {
	if err := Process(testUID, testUID, Given); err != nil {
		return err
	}
	report(append(attempts(socket), attempt{"socket of IPv4", func() error { return openSocket(unix.AF_INET) }},
		attempt{"socket of IPv6", func() error { return openSocket(unix.AF_INET6) }},
		attempt{"connect by a socket that it has", func() error { return unix.Connect(freeSocket, &unix.SockaddrUnix{Name: socket}) }},
		attempt{"bind a socket that it has", func() error { return unix.Bind(freeSocket, &unix.SockaddrUnix{Name: "@x"}) }}))
	return nil
}

func playDials(socket string) error {
	if err := Process(testUID, testUID, Dials); err != nil {
		return err
	}
	report(append(attempts(socket),
		attempt{"may have a socket of IPv4", func() error { return openSocket(unix.AF_INET) }},
		attempt{"may have a socket of IPv6", func() error { return openSocket(unix.AF_INET6) }},
		attempt{"reach a unix socket by its path", func() error { return unix.Connect(freeSocket, &unix.SockaddrUnix{Name: socket}) }}))
	return nil
}

func playRooted(socket string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := emptyRoot(); err != nil {
		return err
	}
	if err := syscall.Setresuid(testUID, testUID, testUID); err != nil {
		return err
	}
	report([]attempt{
		{"open a file", func() error { return openFile("/etc/passwd") }},
		{"open its own descriptors", func() error { return openFile("/proc/self/fd/0") }},
		{"open a file above", func() error { return openFile("../../../../etc/passwd") }},
		{"open where it was", func() error { return openFile(dir) }},
		{"reach a unix socket by its path", func() error { return unix.Connect(freeSocket, &unix.SockaddrUnix{Name: socket}) }},
		{"execute", func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
		{"make a file", func() error { return unix.Mknod("/x", unix.S_IFREG|0o600, 0) }},
		{"make a folder", func() error { return unix.Mkdir("/x", 0o700) }},
		{"change the root again", func() error { return unix.Chroot(".") }},
	})
	return nil
}

// attempt is something that a confined process must not do.
type attempt struct {
	name string
	do   func() error
}

func report(all []attempt) {
	for _, a := range all {
		err := a.do()
		name := "done"
		if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // of a system call, unwrapped
			name = unix.ErrnoName(errno)
		} else if err != nil {
			name = err.Error()
		}
		fmt.Printf("%s: %s\n", a.name, name)
	}
}

func openFile(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func openSocket(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// parent is who started us, as a process that a confined one could want to harm.
func parent() int {
	pid, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	return pid
}
