package main

import (
	"context"
	"os"
	"os/exec"
	"syscall"

	"fiefdom/emperor"
)

// ownerOf is who a file belongs to. foreign says that we are root and he is
// not: his ini may run commands and read files, which must not happen with our
// rights.
func ownerOf(path string) (owner syscall.Credential, foreign bool) {
	st, err := os.Stat(path)
	if err != nil {
		return owner, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return owner, false
	}
	return syscall.Credential{Uid: sys.Uid, Gid: sys.Gid}, os.Geteuid() == 0 && sys.Uid != 0
}

// runAs runs this command again under an owner's rights.
func runAs(owner syscall.Credential, args ...string) error {
	cmd := asOwner(context.Background(), owner, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState != nil && !cmd.ProcessState.Success() {
		return exitAs{cmd.ProcessState.ExitCode()}
	}
	return err
}

// exitAs ends the command with the code of one that has said everything.
type exitAs struct{ code int }

func (e exitAs) Error() string { return "failed" }
func (e exitAs) Unwrap() error { return errSaid }

// asOwner is this command, to be started under an owner's rights.
func asOwner(ctx context.Context, owner syscall.Credential, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = emperor.CleanEnv("/") // what he may expand there must not read our secrets
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &owner}
	return cmd
}
