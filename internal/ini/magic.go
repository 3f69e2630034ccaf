package ini

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"path"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Version is the uWSGI whose dialect this is; %V says so.
const Version = "2.0.21"

// magic is the table of magic variables: the byte after the percent sign and
// what stands for the two. Like uWSGI's it is filled again by each file, and
// keeps what a source without a path (":section", exec://) does not set.
type magic [256]string

// newMagic fills in what does not depend on the file.
func newMagic(o Options) magic {
	var m magic
	now := time.Now()
	m['['] = "\x1b"
	m['V'] = Version
	m['t'] = strconv.FormatInt(now.Unix(), 10)
	m['T'] = strconv.FormatInt(now.UnixMicro(), 10)
	m['k'] = strconv.Itoa(runtime.NumCPU())
	m['v'] = o.Dir
	if m['v'] == "" {
		m['v'], _ = os.Getwd()
	}
	m['h'], _ = os.Hostname()
	m['b'] = o.Binary
	m['u'] = strconv.Itoa(os.Getuid())
	m['g'] = strconv.Itoa(os.Getgid())
	m['U'], m['G'] = m['u'], m['g']
	if u, err := user.LookupId(m['u']); err == nil {
		m['U'] = u.Username
	}
	if g, err := user.LookupGroupId(m['g']); err == nil {
		m['G'] = g.Name
	}
	for c, value := range o.Vars {
		m[c] = value
	}
	return m
}

// knownMagic are the letters that are magic variables, also when they are empty.
const knownMagic = "opsdcenxijOPSDCENXIJvhtTuUgGkVb[%(0123456789"

// perFile are the variables of the file; their capitals stay those of the
// first one.
const perFile = "opsdcenxij"

// fillMagic sets the variables of a file and of the section wanted of it.
func (l *loader) fillMagic(s source, section string) error {
	m := &l.magic
	name, _ := splitSection(s.name)
	m['o'] = name
	if name != "-" && scheme(name) == "" {
		m['x'] = section
		if name != "" {
			l.fillPath(name)
		}
	}
	if l.aside {
		m['n'] = m['N']
	}
	for _, c := range []byte(perFile) {
		if strings.ContainsAny(m[c], "\n\r\x00") {
			// It would be taken for another line of the configuration.
			return fmt.Errorf("the file's name %q contains a line break", m[c])
		}
		if s.first {
			m[c-'a'+'A'] = m[c]
		}
	}
	return nil
}

func (l *loader) fillPath(name string) {
	abs, err := l.Abs(l.path(name))
	if err != nil { // it was read, but not from where it says
		abs = path.Join("/", l.magic['v'], name)
		if path.IsAbs(name) {
			abs = name
		}
	}
	m := &l.magic
	m['p'] = abs
	m['s'] = path.Base(abs)
	m['d'] = abs[:strings.LastIndexByte(abs, '/')+1]
	m['c'] = strings.TrimSuffix(m['d'], "/")
	m['c'] = m['c'][strings.LastIndexByte(m['c'], '/')+1:]
	m['n'], m['e'] = m['s'], ""
	if dot := strings.LastIndexByte(m['s'], '.'); dot >= 0 {
		m['n'], m['e'] = m['s'][:dot], m['s'][dot+1:]
	}
	parts := strings.FieldsFunc(m['d'], func(r rune) bool { return r == '/' })
	for i := range 10 {
		m['0'+i] = ""
		if i < len(parts) {
			m['0'+i] = parts[i]
		}
	}
	m['i'] = l.Inode(l.path(name))
	m['j'] = djb33(abs)
}

// djb33 is Bernstein's hash (the xor variant) as uWSGI prints it: the bytes of
// the number in the order of a little-endian machine.
func djb33(s string) string {
	h := uint32(5381)
	for i := range len(s) {
		h = h*33 ^ uint32(s[i])
	}
	return fmt.Sprintf("%X", binary.LittleEndian.AppendUint32(nil, h))
}
