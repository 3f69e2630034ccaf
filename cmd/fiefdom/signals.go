package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// orders are the signals by which uWSGI's emperor is told what to do; TERM,
// INT and QUIT, which end it, aside. PIPE is ignored.
var orders = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGURG, syscall.SIGWINCH}

// noPreemption is the runtime's setting that makes SIGURG ours.
const noPreemption = "asyncpreemptoff=1"

// ownURG sees to it that every SIGURG comes from outside. Go's runtime preempts
// goroutines by sending this signal to its own threads (runtime/preempt.go),
// some dozens a second, and a program that asks for the signal is given those
// too, without a word about who sent them. The setting that ends it is read
// only as a process begins: so the emperor begins once more, as the same
// process, and takes the setting out of what its children find. Goroutines
// are then preempted at calls alone; the emperor has none that makes no calls.
func ownURG() error {
	settings := os.Getenv("GODEBUG")
	was, on := strings.CutSuffix(settings, noPreemption)
	if !on {
		if settings != "" {
			settings += ","
		}
		if err := os.Setenv("GODEBUG", settings+noPreemption); err != nil {
			return err
		}
		defer ignoreOrders()()
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	if was = strings.TrimSuffix(was, ","); was == "" {
		return os.Unsetenv("GODEBUG")
	}
	return os.Setenv("GODEBUG", was)
}

// ignoreOrders has the kernel ignore the orders, and INT, until restore. Exec makes
// each handler the default again, by which they would end the program that
// begins, while it keeps what is ignored; Go's runtime leaves HUP and INT so until they
// are asked for, and does nothing for the others. An emperor that begins does
// anyway what the orders say. This is not os/signal's Ignore, which would have the
// one who goes on after an exec that failed forget who asked for them.
func ignoreOrders() (restore func()) {
	// struct sigaction of the kernel, not of libc (linux/signal_types.h).
	type sigaction struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	var restores []func()
	for _, sig := range append(slices.Clone(orders), os.Interrupt) {
		n, ignore, was := uintptr(sig.(syscall.Signal)), sigaction{handler: 1}, sigaction{}
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&ignore)), uintptr(unsafe.Pointer(&was)), unsafe.Sizeof(was.mask), 0, 0)
		if errno == 0 {
			restores = append(restores, func() {
				_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&was)), 0, unsafe.Sizeof(was.mask), 0, 0)
			})
		}
	}
	return func() {
		for _, restore := range restores {
			restore()
		}
	}
}

// takeOrders begins to receive the orders. Until then, and by default, USR1 and
// HUP would end the process.
func takeOrders() (received chan os.Signal, stop func()) {
	received = make(chan os.Signal, 8)
	signal.Notify(received, orders...)
	return received, func() { signal.Stop(received) }
}

// renew becomes the program that is installed now, if it is another one or the
// emperor's ini has changed, and it can adopt the vassals; who cannot puts at least
// other chains in force. Else it reads all inis again, as if all had been touched.
func (r *runner) renew(ctx context.Context) {
	if r.vault == nil || !r.program.changed() {
		// Other chains are what was meant, and take nobody's process.
		changed, err := r.emperor.ReloadRules()
		r.manager.reloading() // and no sooner: it is over when no ini waits to be read
		switch {
		case err != nil:
			r.log.Error("the emperor's ini cannot be read again; going on", "err", err)
		case !changed:
			r.emperor.Reload()
		default:
			r.emperor.ReloadPolicy()
		}
		return
	}
	r.manager.reloading()
	become, err := r.upgrade(ctx)
	if err != nil {
		r.log.Error("not upgraded; going on", "err", err)
		r.emperor.ReloadPolicy() // it waits for no other program
		return
	}
	become()
}

// obey does what the signals say until ctx is done.
func (r *runner) obey(ctx context.Context) {
	for {
		select {
		case sig := <-r.orders:
			switch sig {
			case syscall.SIGHUP:
				r.renew(ctx)
			case syscall.SIGUSR1:
				r.emperor.Report(ctx)
			case syscall.SIGURG:
				r.emperor.Forgive()
			case syscall.SIGWINCH:
				r.emperor.Scan()
			}
		case <-ctx.Done():
			return
		}
	}
}
