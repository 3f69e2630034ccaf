package vassal

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
)

// OOMScoreOption is the option's name.
const OOMScoreOption = "oom-score-adj"

// maxOOMScore is the kernel's bound (proc_pid_oom_score_adj(5)).
const maxOOMScore = 1000

// ProtectedScore is what the emperor and the router have: nearly everybody is
// killed before them, but not nobody, should they be the ones who take it all.
const ProtectedScore = -900

// OOMScore is the option, for a vassal's ini and as the default of all in the
// emperor's.
func OOMScore[T any](of func(*T) **int, note func(*T, ini.Pair), whose string) ini.Option[T] {
	return ini.Option[T]{
		Name: OOMScoreOption, Kind: ini.Int, Since: "0.1",
		Meaning: "-1000 to 1000: who is killed first when the machine has no memory left, as the kernel's oom_score_adj (0)" + whose,
		Set: func(c *T, p ini.Pair) error {
			n, err := ini.ParseInt(p.Value)
			if err != nil || n < -maxOOMScore || n > maxOOMScore {
				return fmt.Errorf("%s = %.100s: want a number from -%d to %[3]d", p.Key, p.Value, maxOOMScore)
			}
			*of(c) = &n
			note(c, p)
			return nil
		},
	}
}

// scoreOOM sets the score of a process and all that it will start.
func (l *Limits) scoreOOM(pid int) error {
	if l.OOMScore == nil {
		return ExposeToOOM(pid)
	}
	return setOOMScore(strconv.Itoa(pid), *l.OOMScore)
}

func setOOMScore(process string, score int) error {
	err := os.WriteFile("/proc/"+process+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	return fmt.Errorf("%s %d: %w", OOMScoreOption, score, err)
}

// neverKilled is the score of whom the kernel does not look at.
const neverKilled = -1000

// spareFromOOM keeps a reaper, whose end is that of all, from being killed for
// what its app takes. A machine may not let us, as containers do not: then the
// kernel chooses whoever is biggest.
func spareFromOOM(reaper int) { _ = setOOMScore(strconv.Itoa(reaper), neverKilled) }

// ProtectFromOOM lowers the score of this process, and of those that it starts
// from then on, unless somebody has set one.
func ProtectFromOOM() error {
	if ownOOMScore() != 0 {
		return nil
	}
	return setOOMScore("self", ProtectedScore)
}

// ExposeToOOM takes from a process, and those that it will start, what it has
// inherited of this one's protection.
func ExposeToOOM(pid int) error {
	if ownOOMScore() >= 0 {
		return nil
	}
	return setOOMScore(strconv.Itoa(pid), 0)
}

func ownOOMScore() int {
	b, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return n
}
