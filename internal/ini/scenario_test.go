package ini

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// scenario is main.ini and the files beside it: "stdin" is the standard input.
type scenario map[string]string

// scenarioEnv is the environment of all scenarios. One option is all that it
// may have, since the shell that starts uwsgi does not keep their order.
var scenarioEnv = []string{
	"PATH=/usr/bin:/bin", "CASE_A=a", "CASE_R=r%(k9)", "CASE_B=", "UWSGI_K3=from $(CASE_R)", "UWSGI_RELOADS=1",
}

// lastKey refers to nothing. Keys refer only to keys after them, so that no
// expansion is endless.
const lastKey = 9

// dice draws what a scenario is made of.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0))} }

func (d dice) oneIn(n int) bool        { return d.IntN(n) == 0 }
func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }
func (d dice) key(after int) int       { return after + 1 + d.IntN(lastKey-after) }

// scenario draws files. Files include only those that come later in the
// alphabet, main.ini all of them. Left out is where we differ on purpose:
// config may name an ini and include a section, a byte order mark is skipped, a
// strict file may use a key as a placeholder without set-ph; and what is not
// defined: a % as the last byte of injected text, and the time (%t, %T).
func (d dice) scenario() scenario {
	s := scenario{
		"f0": "from a file\nsecond\n\n", "f1": "x%(k9)$(CASE_R)", "f2": "", "lines": "l1\nl 2\r\n\n%(nope)", "empty.ini": "",
		"stdin": d.one("from stdin\n", "", "[uwsgi]\nk8 = from stdin\n"),
		"text":  d.one("k7 = injected %n\n", "[uwsgi]\nk8 = %s", "k6 = 5%\nk6 = 6", "[other]\n", "# comment", "", "k2 = plain\n\n"),
	}
	s["main.ini"] = d.file("a.ini", "b.ini", "empty.ini")
	s["a.ini"] = d.file("b.ini", "empty.ini")
	s["b.ini"] = d.file()
	return s
}

// file draws an ini that may include others.
func (d dice) file(others ...string) string {
	var b strings.Builder
	if d.oneIn(10) {
		b.WriteString(d.one("orphan = 1\n", "\n\n", "; first\n"))
	}
	b.WriteString("[uwsgi]" + d.blank() + "\n")
	if d.oneIn(30) {
		b.WriteString("strict = false\n")
	}
	for range 1 + d.IntN(8) {
		b.WriteString(d.lines(others))
	}
	b.WriteString(d.one("", "[other]\n", "[other]\n", "[uwsgi\n", "[ uwsgi ]\n", "[]\n"))
	b.WriteString(d.option("\n"))
	b.WriteString("[uwsgi]\r\n")
	b.WriteString(d.option(d.one("\n", "", "\n\n")))
	text := b.String()
	if d.oneIn(8) {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	return text
}

func (d dice) lines(others []string) string {
	switch d.IntN(16) {
	case 0:
		return d.blank() + d.one("# comment = 1", ";", "", "#", "[uwsgi]") + "\n"
	case 1, 2:
		return d.include(others)
	case 3, 4:
		return d.block(others)
	case 5, 6:
		i := d.IntN(lastKey)
		return fmt.Sprintf("%s=%sk%d=%s\n", d.one("set", "set-ph ", "set-placeholder"), d.blank(), i, d.value(i))
	case 7:
		return d.declared(others)
	case 8:
		return d.one("inject-before = text\n", "inject-after = text\n", "resolve = k4=127.0.0.1\n")
	case 9:
		list := strings.Join([]string{"zz", d.one("k0", "k9", "zz"), d.one("K1", "set", "zz"), "end-blacklist"}, " ")
		return "blacklist = " + strings.TrimSuffix(list, d.one(" end-blacklist", "")) + "\n" + d.option("\n") + "end-blacklist =\n"
	case 10:
		return "whitelist = k0 k1 k2 k3 k4  k5 k6 k7 k8 k9" + d.one(" end-whitelist", " end-whitelist", "") + "\n" + d.option("\n") + "end-whitelist\n"
	case 11: // the next line becomes part of this one
		return fmt.Sprintf("%sk%d = 50%%\nk5=joined\n", d.one("", "# "), d.IntN(lastKey))
	}
	return d.option("\n")
}

func (d dice) include(others []string) string {
	if len(others) == 0 {
		return d.option("\n")
	}
	other := d.one(others...)
	return d.one(
		"include = "+other, "include="+other, "inherit = "+other, "ini = "+other, "ini = :other", "ini = "+other+":other",
		"ini = :nope", "ini = exec://cat "+other, "ini = -", "ini = fd://0", "include = ./"+other,
	) + "\n"
}

func (d dice) block(others []string) string {
	open := d.one(
		"for = a b  c", "for =", "for-times = 3", "for-times = x", "for-glob = f*", "for-glob = no*", "for-readline = lines", "for-readline = f2",
		"if-env = CASE_A", "if-env = NOPE", "if-env = CASE_B=", "if-not-env = NOPE", "if-not-env = CASE_A=x",
		"if-opt = k1", "if-not-opt = k1", "if-opt = k2=a", "if-not-opt = k2=a", "ifexists = f0", "if-exists = no", "if-not-exists = f0", "if-not-exists = no",
		"if-file = .", "if-file = f0", "if-not-file = .", "if-dir = .", "if-directory = f0", "ifdir = .", "if-not-dir = no", "if-reload = x", "if-not-reload =",
		"if-hostname = nobody", "if-not-hostname = nobody", "if-hostname-match = .", "if-not-hostname-match = ^$", "if-plugin = nope", "ifplugin = nope", "if-not-plugin = nope",
		"ifenv = CASE_A", "if-opt = ini=main.ini", "if-opt = k3",
	)
	body := d.option("\n") + d.option("\n")
	if len(others) > 0 && d.oneIn(6) {
		body += d.one("include = ", "inherit = ") + d.one(others...) + "\n"
	}
	if d.oneIn(6) {
		i := d.IntN(lastKey)
		body += fmt.Sprintf("set = k%d=%s\n", i, d.value(i))
	}
	if d.oneIn(10) { // an error where it counts
		body += d.one("if-env = CASE_A\n", "if-not-env = CASE_A\n", "for = x y\n", "for-times = 2\n") + d.option("\n") + d.one("endif =\n", "endfor =\n", "") + d.option("\n")
	}
	if strings.HasPrefix(open, "if-opt") || strings.HasPrefix(open, "if-not-opt") { // an option's value may refer to the key that would get it
		body = strings.ReplaceAll(body, "%(_)", "_") + "last = %(_)\n"
	}
	return open + "\n" + body + d.one("endif =\n", "end\n", "endfor = x\n", "end-if=\n", "end-for\n")
}

// declared draws an option that is declared and used.
func (d dice) declared(others []string) string {
	i, name := d.IntN(lastKey), d.one("d0", "d1", "k0")
	templates := []string{
		fmt.Sprintf("set=k%d=$1", i), fmt.Sprintf("set=k%d=$2$1;set-ph=k%d=<$1>", i, i), fmt.Sprintf("set-ph=k%d=x$3", i),
		fmt.Sprintf("set=k%d=$1;;no;set=k%d=never", i, i), "procname=$1", "umask=022", "set=d2=$1", "unknown=$1", fmt.Sprintf("if-env=CASE_A;set=k%d=$1", i), "",
	}
	for _, other := range others {
		templates = append(templates, "include="+other, "inherit="+other)
	}
	value := d.value(i)
	if d.oneIn(3) {
		value = d.one("a b", "a  b c d", "", "$2 b", "$1")
	}
	return fmt.Sprintf("%s = %s=%s\n%s = %s\n", d.one("declare-option", "declare-option", "declare-option", "declare-option2"), name, d.one(templates...), name, value)
}

func (d dice) option(end string) string {
	i := d.IntN(lastKey + 1)
	key := fmt.Sprintf("k%d", i)
	if d.oneIn(15) {
		key = d.one("procname", "procname-append", "K1", "k 1", "\"k1\"", "`k1`", "é", "k1;", "-")
		i = lastKey
	}
	if d.oneIn(30) {
		return key + end
	}
	return d.blank() + key + d.one("=", " = ", "\t=", "= ", "==") + d.value(i) + d.blank() + end
}

func (d dice) blank() string { return d.one("", "", "", " ", "\t", "\r", " \t ") }

// value puts the value of key i together.
func (d dice) value(i int) string {
	var b strings.Builder
	refs := 0
	for range d.IntN(6) {
		switch n := d.IntN(10); {
		case n < 3 && i < lastKey && refs < 2:
			refs++
			b.WriteString(d.reference(d.key(i)))
		case n < 5:
			b.WriteString(d.one(
				"%o", "%O", "%p", "%P", "%s", "%S", "%d", "%D", "%n", "%N", "%e", "%E", "%c", "%C", "%x", "%X", "%i", "%I", "%j", "%J",
				"%v", "%h", "%u", "%U", "%g", "%G", "%V", "%b", "%[", "%0", "%1", "%9", "%k", "%%", "%z", "%.", "%%%%", "%=", "% ",
			))
		case n < 6 && i < lastKey:
			b.WriteString(d.one("$(CASE_R)", "$(CASE_A)", "$(CASE_B)", "$(NOPE)", "$(", "$()", "@(f0)", "@(f1)", "@(f2)", "$($(NOPE))", "@(-)", "@(fd://0)", "@(section://.interp)", "@(data://0)", "@(data://1)", "$(CASE_$(CASE_B)A)"))
			if d.oneIn(20) {
				b.WriteString("@(exec://echo hi; echo)")
			}
		default:
			b.WriteString(d.one("a", "b c", "3", "-7", "-", "=", "(", ")", "'", `"`, "`", `"""`, ";", " # ", "\t", `\`, "é", "\u00a0", "\v", "[", "]", "$", "$1", ":", "%(_)", "%(_)", "%(nope)", "%(", "%()", "%(ini)", "%(1 + 2 * 3)", "%(7 / 2 --)"))
		}
	}
	return b.String()
}

func (d dice) reference(to int) string {
	ref := fmt.Sprintf("k%d", to)
	return d.one(
		"%("+ref+")", "%("+ref+")", "%("+ref+")", "%%("+ref+")", "%("+ref+" + 1)", "%("+ref+" "+ref+")", "%(2 * "+ref+" ++)", "%("+ref+" / 0)", "%(- "+ref+"  -- 1)",
		"%(%("+ref+"))", "%(nope "+ref+")", "%("+ref+" )", "%( "+ref+")", "%("+ref+" - 99999999999999999999)", "%(99999999999 * "+ref+")", "%("+ref+"(", "%("+ref+"))",
	)
}

// shrink takes from a scenario what does not matter to the difference.
func shrink(s scenario, differs func(scenario) bool) scenario {
	budget := 500 // of comparisons
	for again := true; again; {
		again = false
		for _, name := range slices.Sorted(maps.Keys(s)) {
			for _, separator := range []string{"\n", ""} {
				pieces := strings.SplitAfter(s[name], separator)
				for size := max(1, len(pieces)/2); size > 0; size /= 2 {
					for from := 0; from+size <= len(pieces); {
						less := slices.Concat(pieces[:from], pieces[from+size:])
						budget = max(0, budget-1)
						try := maps.Clone(s)
						try[name] = strings.Join(less, "")
						if try[name] == s[name] || budget == 0 || !differs(try) {
							from += size
							continue
						}
						s, pieces, again = try, less, true
					}
				}
			}
		}
	}
	return s
}
