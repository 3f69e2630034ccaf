package vassal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A vassal with Users has one stage more. Its init stage does what needs the
// host's root, the cage with it, and then passes on to a stage that is born in
// the user namespace, as a child of the same reaper, and becomes the app. So the
// vassal's other namespaces are the host's, and no capability of the app's is
// over its mounts, its network or its processes' numbers.

// passFD is where an init stage tells its reaper to whom it has passed on.
func (plan *Plan) passFD() int {
	fd := handshakeFD + 1
	if plan.Protocol {
		fd = channelFD + 1
	}
	if plan.Settings != SettingsNone {
		fd = settingsFD + 1
	}
	return fd
}

// awaitPass makes the way back for passOn. next waits for the pid of the stage in
// the user namespace; without one it is that of the stage that ended instead.
func (plan *Plan) awaitPass() (next func(pid int) int, err error) {
	if plan.Users == nil || plan.Joined {
		return func(pid int) int { return pid }, nil
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe of the pid namespace: %w", err)
	}
	plan.pass = ends[1]
	return func(pid int) int {
		_ = unix.Close(ends[1]) // the stage has its own
		defer unix.Close(ends[0])
		var b [4]byte
		n, err := unix.Read(ends[0], b[:])
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Read(ends[0], b[:])
		}
		if err != nil || n < len(b) {
			return pid
		}
		return int(binary.NativeEndian.Uint32(b[:]))
	}, nil
}

// passOn starts the stage in the user namespace, beside this one, which is done.
func (plan *Plan) passOn(p *pipe) error {
	pidfd := -1
	files := []uintptr{0, 1, 2, handshakeFD}
	if plan.Protocol {
		files = append(files, channelFD)
	}
	if plan.Settings != SettingsNone {
		files = append(files, settingsFD)
	}
	ids := plan.Users.ids()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{os.Args[0], InitStage}, &syscall.ProcAttr{
		Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_PARENT, PidFD: &pidfd, Setsid: true,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
		},
	})
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("%w; make the folder proc in the root", err)
		}
		return fmt.Errorf("userns = auto: start in the user namespace: %w", explainClone(err, unix.CLONE_NEWUSER))
	}
	if pidfd < 0 {
		return errors.New("userns = auto: this kernel has no pidfds (Linux 5.3)")
	}
	if err := errors.Join(p.send(word{App: true, Inside: true}, pidfd), unix.Close(pidfd)); err != nil {
		return err
	}
	_, err = unix.Write(plan.passFD(), binary.NativeEndian.AppendUint32(nil, uint32(pid)))
	return err
}

// inside is the whole way of the stage that is in the user namespace. It knows its
// own ids only.
func (plan *Plan) inside(ctx context.Context, p *pipe) (int, error) {
	if plan.Joined {
		if err := plan.environment(); err != nil {
			return 1, err
		}
		if err := plan.takeTerminal(); err != nil {
			return 1, err
		}
	}
	plan.UID, plan.GID = plan.Users.Inside(plan.UID), plan.Users.Inside(plan.GID)
	for i, g := range plan.Groups {
		plan.Groups[i] = plan.Users.Inside(g)
	}
	return plan.employ(ctx, p)
}
