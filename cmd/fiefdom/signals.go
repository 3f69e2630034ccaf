package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
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
		return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	if was = strings.TrimSuffix(was, ","); was == "" {
		return os.Unsetenv("GODEBUG")
	}
	return os.Setenv("GODEBUG", was)
}

// takeOrders begins to receive the orders. Until then, and by default, USR1 and
// HUP would end the process.
func takeOrders() (received chan os.Signal, stop func()) {
	received = make(chan os.Signal, 8)
	signal.Notify(received, orders...)
	return received, func() { signal.Stop(received) }
}

// renew becomes the program that is installed now, if it is another one, or the
// emperor's ini has changed, and it can adopt the vassals; else it reads all inis
// again, as if all had been touched.
func (r *runner) renew(ctx context.Context) {
	if r.vault == nil || !r.program.changed() {
		r.emperor.Reload()
		return
	}
	become, err := r.upgrade(ctx)
	if err != nil {
		r.log.Error("not upgraded; going on", "err", err)
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
				r.manager.reloading()
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
