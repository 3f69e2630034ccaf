package vassal

import (
	"fmt"
	"strings"
	"testing"

	"fiefdom/internal/ini"
)

func TestPublishIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]string{
		"8080":                                  "8080:8080/tcp",
		"8080:80":                               "8080:80/tcp",
		"53:53/udp":                             "53:53/udp",
		"127.0.0.1:8080:8000/tcp":               "127.0.0.1:8080:8000/tcp",
		"127.0.0.1:8080":                        "127.0.0.1:8080:8080/tcp",
		"[::]:53:53/udp":                        "[::]:53:53/udp",
		"[2001:db8::1]:443:8443":                "[2001:db8::1]:443:8443/tcp",
		"0.0.0.0:80:80":                         "0.0.0.0:80:80/tcp",
		"8000-8010:9000-9010":                   "8000-8010:9000-9010/tcp",
		"8000-8000:80":                          "8000:80/tcp",
		"22:22 from 203.0.113.0/24":             "22:22/tcp from 203.0.113.0/24",
		"22:22 from 203.0.113.9, 2001:db8::/32": "22:22/tcp from 203.0.113.9,2001:db8::/32",
		"1-1024:64512-65535":                    "1-1024:64512-65535/tcp",
	} {
		p, err := ParsePublish(text)
		if err != nil || p.String() != want {
			t.Errorf("%q is %q, %v; want %q", text, p, err, want)
			continue
		}
		again, err := ParsePublish(p.String())
		if err != nil || again.String() != want {
			t.Errorf("%q read again is %q, %v", want, again, err)
		}
	}
}

func TestPublishErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "want [ADDRESS:]PORT:PORT",
		"http":                             `"http" is no port`,
		"0:80":                             `"0" is no port`,
		"80:":                              `"" is no port`,
		":80":                              `"" is no port`,
		"65536:80":                         "is no port",
		"80:80/sctp":                       "want tcp or udp",
		"80:80/TCP":                        "want tcp or udp",
		"80-90:80":                         "11 ports of the host and 1 of the vassal",
		"90-80:90-80":                      "the lower one first",
		"2001:db8::1:80:80":                "in brackets",
		"[198.51.100.1]:80:80":             "no IPv6 address",
		"198.51.100.300:80:80":             "no address",
		"224.0.0.1:80:80":                  "cannot be published at 224.0.0.1",
		"[fe80::1]:80:80":                  "cannot be published at",
		"[::ffff:10.0.0.1]:80:80":          "cannot be published at",
		"127.0.0.2:80:80":                  "not at 127.0.0.2",
		"127.0.0.1:80:80 from 10.0.0.0/8":  `leave "from" out`,
		"80:80 from":                       "want [ADDRESS:]PORT:PORT",
		"80:80 by 10.0.0.0/8":              "want [ADDRESS:]PORT:PORT",
		"80:80, 81:81":                     "each has a line of its own",
		"80:80 from 10.0.0.1/8":            "want 10.0.0.0/8",
		"80:80 from here":                  "want an address or a prefix",
		"0.0.0.0:80:80 from 2001:db8::/32": "of the other family",
	} {
		if p, err := ParsePublish(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %q, %v; want %q", text, p, err, want)
		}
	}
}

func TestPublishClashes(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"80:80", "80:81", true},
		{"80:80", "80:80/udp", false},
		{"80:80", "81:80", false},
		{"80:80", "127.0.0.1:80:80", true},
		{"80-90:80-90", "85:85", true},
		{"80-90:80-90", "91:91", false},
		{"0.0.0.0:80:80", "[::]:80:80", false},
		{"0.0.0.0:80:80", "198.51.100.1:80:80", true},
		{"[::]:80:80", "198.51.100.1:80:80", false},
		{"127.0.0.1:80:80", "198.51.100.1:80:80", false},
		{"127.0.0.1:80:80", "127.0.0.1:80:81", true},
		{"[::1]:80:80", "127.0.0.1:80:80", false},
	} {
		a, errA := ParsePublish(c.a)
		b, errB := ParsePublish(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Clashes(b) != c.want || b.Clashes(a) != c.want {
			t.Errorf("%s and %s: %v, %v; want %v", a, b, a.Clashes(b), b.Clashes(a), c.want)
		}
	}
}

func TestPublishInAnIni(t *testing.T) {
	parse := func(lines ...string) (*Config, ini.Errors) {
		f := &ini.File{Name: "blog.ini"}
		for i, line := range append([]string{"command = /bin/true"}, lines...) {
			key, value, _ := strings.Cut(line, " = ")
			f.Pairs = append(f.Pairs, ini.Pair{Key: key, Value: value, Pos: ini.Pos{File: "blog.ini", Line: i + 1}})
		}
		return Parse("blog", f)
	}
	c, errs := parse("publish = 8080:80", "publish = 53:53/udp")
	if errs.Failed() || len(c.Publish) != 2 || c.Publish[1].Pos.Line != 3 {
		t.Fatalf("%+v, %v", c.Publish, errs)
	}
	var many []string
	for i := range 9 {
		line := fmt.Sprintf("publish = %d:80 from ", 8000+i)
		for n := range 32 {
			line += fmt.Sprintf("10.%d.%d.0/24,", i, n)
		}
		many = append(many, strings.TrimSuffix(line, ","))
	}
	if _, errs := parse(many[:8]...); errs.Failed() {
		t.Error(errs)
	}
	for want, lines := range map[string][]string{
		`blog.ini:10: publish: more than 256 prefixes after "from" in all lines`:     many,
		"blog.ini:3: publish: 127.0.0.1:8080/tcp is already published by blog.ini:2": {"publish = 8080:80", "publish = 127.0.0.1:8080:81"},
		"blog.ini:2: publish: more than 1024 ports":                                  {"publish = 1000-2100:1000-2100"},
		`blog.ini:2: "x" is no port`:                                                 {"publish = x"},
	} {
		if _, errs := parse(lines...); !strings.Contains(errs.Error(), want) {
			t.Errorf("%v: %v; want %s", lines, errs, want)
		}
	}
}

// FuzzParsePublish: what is read is written so that it is read as the same.
func FuzzParsePublish(f *testing.F) {
	f.Add("127.0.0.1:80-90:8080-8090/udp from 10.0.0.0/8,::1")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePublish(text)
		if err != nil {
			return
		}
		again, err := ParsePublish(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q: %q, then %q, %v", text, p, again, err)
		}
	})
}
