package ini

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// Options say how to load a file. The zero value takes it from the real
// machine; tests and fuzzing replace what touches it. The functions get names
// that start at Dir already.
type Options struct {
	Dir      string                 // where relative names and commands start, and %v; "" is the working directory
	Sections []string               // which sections count when the name asks for none; nil: uwsgi, fiefdom
	Every    bool                   // all sections count; File.Headers tells them apart
	IsOption func(name string) bool // known options, which set-ph must not name; nil: none
	Reload   bool                   // what if-reload says
	Limits   Limits

	// Options beside the file, as on a command line before and after its name:
	// an emperor's for all its vassals. In files that they include, %n is the
	// name of the file that Load was called for: their own would be the same for
	// everybody.
	Before, After []Pair

	LookupEnv func(string) (string, bool)            // $(NAME), if-env; nil: os.LookupEnv
	Vars      map[byte]string                        // magic variables that do not depend on the file, instead of the machine's
	Environ   []string                               // its UWSGI_NAME=value are options before all others; nil: none are
	Binary    string                                 // whose sections and blobs section:// and data:// read; "" is this program
	Stdin     io.Reader                              // what "-" reads; nil: "-" is refused
	FD        func(fd int) ([]byte, error)           // fd://; nil: it is refused
	HTTP      func(url string) ([]byte, error)       // http://; nil: it is refused
	Resolve   func(host string) (string, error)      // resolve; nil: it is refused
	ReadFile  func(name string) ([]byte, error)      // nil: regular files of up to 1 MiB
	Exec      func(cmd string) ([]byte, error)       // exec://; nil: sh -c, up to 1 MiB, 10 s for all. Output counts beside an *exec.ExitError
	Stat      func(name string) (fs.FileInfo, error) // if-file, if-dir; nil: os.Stat
	Readable  func(name string) bool                 // if-exists; nil: access(2)
	Glob      func(pattern string) []string          // for-glob; nil: glob(3), sorted, directories with a slash at the end
	Abs       func(name string) (string, error)      // %p; nil: realpath(3), but a symlink itself is not followed
	Inode     func(name string) string               // %i; nil: lstat(2)
	Skipped   func(Pair)                             // is told of options whose condition does not hold, as they are written
	Literal   bool                                   // @(name) stays as it is: nothing is read or run for a value
}

// Limits bound what a file can cost. A zero field is its default.
type Limits struct {
	Pairs   int // options after expansion; 100,000
	Value   int // bytes of one value; 256 KiB
	Total   int // bytes read and made by expansion, all together; 16 MiB
	Depth   int // files that include each other; 16
	Sources int // files and commands read; 1,000
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&l.Pairs, 100_000)
	set(&l.Value, 256<<10)
	set(&l.Total, 16<<20)
	set(&l.Depth, 16)
	set(&l.Sources, 1000)
	return l
}

// File is an ini after expansion.
type File struct {
	Name         string // as given, without the section
	Pairs        []Pair // in order, logic and includes among them, as uwsgi --show-config lists them
	Warnings     Errors
	Strict       bool            // strict = true: unknown options are errors
	Placeholders map[string]bool // keys that set-ph or declare-option define, or that a %(key) or if-opt uses
	Headers      []Header        // of the sections, where every one counts
}

// Header is where a section begins.
type Header struct {
	Name string
	Pos  Pos
}

// Section is the header of the section that a place is in; the zero Header
// without one.
func (f *File) Section(at Pos) (in Header) {
	for _, h := range f.Headers {
		if h.Pos.File == at.File && h.Pos.Line <= at.Line && h.Pos.Line >= in.Pos.Line {
			in = h
		}
	}
	return in
}

// Load reads and expands a file. The name may ask for a section, as in
// "file.ini:section", and may be "-" or "exec://COMMAND". All that is wrong is
// reported at once: the error is of type Errors, with the warnings among it.
// The File beside an error is what could be read, for who only wants to look.
func Load(name string, o Options) (*File, error) {
	l := newLoader(o)
	l.given = name
	l.environment()
	first := source{name: name, pos: Pos{File: name}, first: true}
	l.addBeside(first, o.Before)
	l.load(first)
	l.addBeside(first, o.After)
	l.expand()
	l.configure()
	l.finish()
	f := &File{
		Name:         l.firstFile,
		Pairs:        l.result(),
		Warnings:     l.problems,
		Strict:       l.strict,
		Placeholders: l.defined,
		Headers:      l.headers,
	}
	maps.Copy(f.Placeholders, l.used)
	if l.problems.Failed() {
		return f, l.problems
	}
	return f, nil
}

// entry is an option on its way: done means that the passes leave its value as
// it is, since it has acted already.
type entry struct {
	Pair
	done  bool
	late  bool   // it has acted after the passes
	aside bool   // it comes from the options beside the file
	made  []Pair // what it stands for, if it was declared
}

// result are the options in the order in which they act. What immediate
// options stand for comes first, as in uWSGI.
func (l *loader) result() []Pair {
	pairs := make([]Pair, 0, l.count)
	for _, e := range l.entries {
		if e.done {
			pairs = append(pairs, e.made...)
		}
	}
	for _, e := range l.entries {
		pairs = append(pairs, e.Pair)
		if !e.done {
			pairs = append(pairs, e.made...)
		}
	}
	return pairs
}

// loader is the state of one Load. uWSGI keeps this in global variables; it
// outlives the single file, so that a block may begin in one and end in the
// file that includes it.
type loader struct {
	Options
	entries   []entry
	first     map[string]int    // key -> its first entry: %(key), if-opt
	defined   map[string]bool   // placeholders by set-ph, declared options
	used      map[string]bool   // placeholders by their use
	declared  map[string]string // option -> its template
	filters   filters
	before    []Pair // inject-before
	after     []Pair // inject-after
	plugins   map[string]bool
	magic     magic
	ofEnviron int    // so many entries come from the environment
	given     string // the name that Load was called with
	firstFile string // the same without the section
	lastFile  string // what ":section" is a section of
	block     *block // the if or for that is open
	running   bool   // options are added as a block's body
	aside     bool   // what is added comes from the options beside the file
	strict    bool
	depth     int
	count     int // of options
	sources   int
	spent     int // of Limits.Total
	stopped   bool
	at        Pos // the option that is being worked on
	problems  Errors
	told      map[Error]bool // they
	headers   []Header       // where every section counts
}

func newLoader(o Options) *loader {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.IsOption == nil {
		o.IsOption = func(string) bool { return false }
	}
	if o.Skipped == nil {
		o.Skipped = func(Pair) {}
	}
	if o.Sections == nil {
		o.Sections = []string{"uwsgi", "fiefdom"}
	}
	o.Limits = o.Limits.withDefaults()
	o.useMachine()
	return &loader{
		Options:  o,
		first:    map[string]int{},
		defined:  map[string]bool{},
		used:     map[string]bool{},
		declared: map[string]string{},
		plugins:  map[string]bool{},
		told:     map[Error]bool{},
		magic:    newMagic(o),
	}
}

// addBeside adds options that stand beside the first file.
func (l *loader) addBeside(first source, pairs []Pair) {
	if len(pairs) == 0 {
		return
	}
	name, section := splitSection(first.name)
	first.pos.File = name
	if err := l.fillMagic(first, section); err != nil {
		l.stop(first.pos, "%v", err)
	}
	l.aside = true
	for _, p := range pairs {
		l.add(p, false)
	}
	l.aside = false
}

// source is a name to load and who asked for it.
type source struct {
	name  string
	pos   Pos
	first bool // the file that was asked for; its magic variables are the capitals, too
}

// load reads one file and adds the options of the section that it asks for.
func (l *loader) load(s source) {
	if l.depth++; l.depth > l.Limits.Depth {
		l.stop(s.pos, "%s: more than %d files include each other", s.name, l.Limits.Depth)
		return
	}
	defer func() { l.depth-- }()

	if s.name == "" {
		l.fail(s.pos, "it names no file; write its name, or :SECTION for another section of the last one")
		return
	}
	name, section := splitSection(s.name)
	if s.first {
		l.firstFile, s.pos = name, Pos{File: name}
	}
	if name == "" {
		if name = l.lastFile; name == "" {
			l.fail(s.pos, "%q: there is no file to take the section from", s.name)
			return
		}
	}
	l.lastFile, l.at = name, s.pos
	text, err := l.read(name)
	if l.stopped {
		return
	}
	if err != nil {
		l.fail(s.pos, "cannot read %s: %s", name, reason(err))
		return
	}
	if err := l.fillMagic(s, section); err != nil {
		l.fail(s.pos, "%v", err)
		return
	}
	parts, ok := l.inject(part{name, text})
	if !ok {
		return
	}
	lines, ok := l.scan(parts)
	if !ok {
		return
	}
	for _, p := range l.pairs(name, section, lines) {
		if l.stopped {
			return
		}
		l.add(p, false)
	}
}

// FileOf is the file that a name for Load asks for, without the section. False
// means that it is none: a command, standard input, or another scheme.
func FileOf(name string) (file string, ok bool) {
	file, _ = splitSection(name)
	return file, file != "-" && scheme(file) == ""
}

// splitSection cuts "file:section" at its last colon; that of a scheme, and
// whatever comes before the last slash of a URL, is part of the name.
func splitSection(name string) (file, section string) {
	start := 0
	if scheme(name) != "" {
		start = strings.LastIndexByte(name, '/')
	}
	colon := strings.LastIndexByte(name[start:], ':')
	if colon < 0 {
		return name, ""
	}
	return name[:start+colon], name[start+colon+1:]
}

// configure does what is left when the passes are over, in the order of the
// options. Only magic variables work in inherited files; they may inherit, too.
// As in uWSGI it begins again whenever there are more options: they may declare
// one that was passed over.
func (l *loader) configure() {
	for i := 0; i < len(l.entries) && !l.stopped; i++ {
		e := l.entries[i]
		_, declared := l.declared[e.Key]
		if e.done || e.late || (!declared && e.Key != inheritKey && e.Key != declareKey) {
			continue
		}
		l.entries[i].late = true
		n := len(l.entries)
		l.at, l.aside = e.Pos, e.aside
		switch {
		case declared:
			l.use(e.Pair, i)
		case e.Key == inheritKey:
			l.include(e.Pair)
		default:
			l.declare(e.Pair)
		}
		if len(l.declared) > 0 && len(l.entries) > n {
			i = -1
		}
	}
}

// finish looks at the result as a whole.
func (l *loader) finish() {
	if l.block != nil {
		l.warn(l.block.Pos, "%s = %s is never closed; end it with %q", l.block.Key, l.block.Value, l.block.end)
	}
	// They were found stage by stage; people read files from top to bottom.
	files := map[string]int{}
	for _, p := range l.problems {
		if _, seen := files[p.Pos.File]; !seen {
			files[p.Pos.File] = len(files)
		}
	}
	slices.SortStableFunc(l.problems, func(a, b Error) int {
		return cmp.Or(files[a.Pos.File]-files[b.Pos.File], a.Pos.Line-b.Pos.Line)
	})
}

func (l *loader) fail(at Pos, format string, args ...any) {
	l.report(Error{Pos: at, Message: fmt.Sprintf(format, args...)})
}

func (l *loader) warn(at Pos, format string, args ...any) {
	l.report(Error{Pos: at, Message: fmt.Sprintf(format, args...), Warning: true})
}

// maxProblems is more than anybody reads.
const maxProblems = 1000

func (l *loader) report(e Error) {
	e.Message = printable(e.Message)
	switch {
	case l.told[e]: // a condition is asked for each line of its body, a file may be read again
	case len(l.problems) < maxProblems:
		l.problems, l.told[e] = append(l.problems, e), true
	case !e.Warning && !l.stopped:
		l.problems = append(l.problems, e)
		l.stopped = true
	}
}

// stop ends the load: a limit is reached, and going on would only cost more.
func (l *loader) stop(at Pos, format string, args ...any) {
	if !l.stopped {
		l.fail(at, format, args...)
		l.stopped = true
	}
}

// spend takes n bytes from the total; false means that the load has ended.
func (l *loader) spend(at Pos, n int) bool {
	l.spent += n
	if l.spent > l.Limits.Total {
		l.stop(at, "the configuration grows beyond %d bytes; does an option refer to itself?", l.Limits.Total)
	}
	return !l.stopped
}
