package vassal

import (
	"testing"

	"fiefdom/internal/nettest"
)

// Whom permissions do not hold, since he is uid 0, sees nothing that they keep from
// others, and is not able to end, or take over, the first process of his namespace.
func TestConfinedAppOfRoot(t *testing.T) {
	nettest.Root(t)
	p := confinedPlan(LevelDefault, "")
	p.UID, p.GID = 0, 0
	tries{
		{"id -u", "0"},
		{"for n in $(seq 1 64); do kill -$n 1; done 2>/dev/null; kill -0 1 && echo there", "there"},
		{"kill -STOP 1; echo n$(grep -c '^State:.T' /proc/1/status)e", "n0e"},
		{"ls -l /proc/1/fd/", "annot read symbolic link"},
		{"head -c1 /proc/1/mem", "ermission denied"},
		{"find /etc -type f ! -perm -004 -exec cat {} + 2>/dev/null | wc -c; echo tried", "0\ntried"},
		{"cat /etc/shadow", "ermission denied"},
		{"cat /etc/passwd >/dev/null && echo read", "read"},
		{"touch /etc/x /usr/x /var/x", "ead-only"},
		{"chmod 4755 /tmp; chown 1 /tmp/; mknod /tmp/d c 1 3", "permitted"},
		{"nice -n -5 true", "ermission denied"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
}

// The same holds of the first process where the kernel has no Landlock, whose part
// it is too.
func TestReaperIsNobodysToTrace(t *testing.T) {
	nettest.Root(t)
	p := confinedPlan(LevelDefault, "")
	p.UID, p.GID, p.Confined = 0, 0, nil
	tries{
		{"for n in $(seq 1 64); do kill -$n 1; done 2>/dev/null; kill -0 1 && echo there", "there"},
		{"ls -l /proc/1/fd/", "annot read symbolic link"},
		{"head -c1 /proc/1/mem", "ermission denied"},
		{"cat /proc/1/environ", "ermission denied"},
		{"ls -l /proc/1/exe", "ermission denied"},
	}.try(t, newJail(t, Link{Device: "eth0"}), p)
}
