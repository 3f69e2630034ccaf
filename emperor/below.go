package emperor

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/vassal"
)

// belowTime bounds the end of what a command has left in its cgroup.
const belowTime = 30 * time.Second

// belows numbers the cgroups of runBelow.
var belows atomic.Uint64

// runBelow runs a command of the emperor's to its end, in a session of its own,
// and then ends what it has left, as far as there is a cgroup to find it by. A
// child that holds its output open is no failure.
func runBelow(parent vassal.Cgroup, name string, cmd *exec.Cmd) (err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // not reaped yet: nobody else has the number
	if parent != "" {
		c, err := parent.Make(name + "." + strconv.FormatUint(belows.Add(1), 10))
		if err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), belowTime)
			defer cancel()
			err = errors.Join(err, c.Remove(ctx))
		}()
		dir, err := c.Open()
		if err != nil {
			return err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err = cmd.Start(); err != nil {
		return err
	}
	exposed := vassal.ExposeToOOM(cmd.Process.Pid)
	if err = cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return errors.Join(err, exposed)
}
