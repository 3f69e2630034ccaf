package hostile

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// rights are what a process has that it could have more of.
type rights struct{ uid, capabilities string }

func ownRights() rights {
	status := statusOf("self")
	uid := strings.Fields(status["Uid"])
	if len(uid) < 2 {
		return rights{}
	}
	return rights{uid: uid[1], capabilities: status["CapEff"]}
}

// rightsWord is no row: with it the program prints what it has.
const rightsWord = "rights"

// nobody is who a process of root's becomes before it runs a program that should
// make more of it.
const nobody = 65534

// gains runs a copy of this program that the host's owner has given more rights,
// and compares what it has with what it would have without.
func gains(program, what string) Finding {
	if program == "" {
		return absent("there is no such program here")
	}
	ask := func(program string, attr *syscall.SysProcAttr) (rights, error) {
		cmd := exec.Command(program, "-row", rightsWord)
		cmd.Args[0], cmd.SysProcAttr = "hostile", attr
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			return rights{}, fmt.Errorf("%w %s", err, errs.String())
		}
		var r rights
		_, err = fmt.Sscan(string(out), &r.uid, &r.capabilities)
		return r, err
	}
	self, err := os.Executable()
	if err != nil {
		return unclear("%v", err)
	}
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
	before, err := ask(self, attr)
	if err != nil { // who cannot become nobody asks as who he is
		attr = nil
		if before, err = ask(self, attr); err != nil {
			return unclear("%v", err)
		}
	}
	after, err := ask(program, attr)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return absent("%v", err)
	case err != nil:
		return contained("it does not run: %v", err)
	case after != before:
		return escaped("%s: uid %s with capabilities %s became uid %s with %s", what, before.uid, before.capabilities, after.uid, after.capabilities)
	}
	return contained("uid %s with capabilities %s, as before", after.uid, after.capabilities)
}
