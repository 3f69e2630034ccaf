package emperor

import (
	"net/netip"
	"slices"
	"testing"
)

func TestWhatIsDelicate(t *testing.T) {
	for _, tt := range []struct {
		path        string
		write, read bool // is it, to write, to read
	}{
		{"/run/docker.sock", true, true},
		{"/var/run/docker.sock", true, true},
		{"/run/containerd/containerd.sock", true, true},
		{"/run/postgresql", false, false},
		{"/run", true, true},
		{"/dev/fuse", false, false},
		{"/dev/sda1", true, true},
		{"/dev/mem", true, true},
		{"/etc", true, false},
		{"/etc/nginx", false, false},
		{"/etc/cron.d/blog", true, false},
		{"/usr/bin", true, false},
		{"/usr/share/doc", false, false},
		{"/root", true, true},
		{"/home", true, true},
		{"/home/blog/site", false, false},
		{"/srv/blog/data", false, false},
		{"/var/lib", true, false},
		{"/var/lib/postgresql", false, false},
	} {
		if write, read := delicate(tt.path, true), delicate(tt.path, false); write != tt.write || read != tt.read {
			t.Errorf("%s: to write %v, to read %v", tt.path, write, read)
		}
	}
}

func TestNamesOfSecrets(t *testing.T) {
	c := goodVassal(t, "blog", `env = DB_PASSWORD=hunter2
env = API_KEY=abc
env = AWS_SECRET_ACCESS_KEY=abc
env = DATABASE_URL=postgres://blog:hunter2@10.9.0.7/blog
env = PLAIN_URL=http://10.9.0.7:80/@home
env = DB_PASSWORD_FILE=/run/secrets/db
env = TOKENIZER=fast
env = MONKEY=1
env = EMPTY_TOKEN=
`)
	want := []string{"env DB_PASSWORD", "env API_KEY", "env AWS_SECRET_ACCESS_KEY", "env DATABASE_URL"}
	if got := secretNames(c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLowPublishedPorts(t *testing.T) {
	to, any4, any6 := netip.MustParseAddrPort("10.9.0.7:8000"), netip.IPv4Unspecified(), netip.IPv6Unspecified()
	to6 := netip.MustParseAddrPort("[fd09::7]:8000")
	one := netip.MustParseAddr("198.51.100.1")
	all := []PublishedStatus{
		{Address: any4, Port: 80, Last: 80, Proto: "tcp", To: to},
		{Address: any6, Port: 80, Last: 80, Proto: "tcp", To: to6}, // the same line
		{Address: one, Port: 81, Last: 81, Proto: "tcp", To: to},
		{Address: any4, Port: 82, Last: 82, Proto: "tcp", To: to, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Address: any4, Port: 8080, Last: 8080, Proto: "tcp", To: to},
		{Address: any4, Port: 53, Last: 53, Proto: "udp", To: to},
	}
	var got []string
	for _, p := range lowPublished(all) {
		got = append(got, p.Line, p.Closer)
	}
	want := []string{"publish = 80:8000", "publish = 127.0.0.1:80:8000", "publish = 53:8000/udp", "publish = 127.0.0.1:53:8000/udp"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
