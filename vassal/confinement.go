package vassal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"fiefdom/internal/ini"
)

// Level is how far an app is confined.
type Level string

// The levels, from the widest to the narrowest.
const (
	LevelNone    Level = "none"    // what the ini asks for, and nothing else
	LevelCompat  Level = "compat"  // as uWSGI does; in a native network without rights of its own
	LevelDefault Level = "default" // as an expert would have written it by hand
	LevelStrict  Level = "strict"  // and what may break an app; what the kernel lacks refuses the start
)

var levels = []Level{LevelNone, LevelCompat, LevelDefault, LevelStrict}

// Narrower says whether a level takes more away than another.
func (l Level) Narrower(than Level) bool { return slices.Index(levels, l) > slices.Index(levels, than) }

// Full says whether a level is a confinement of the whole app: namespaces,
// mounts, files, system calls.
func (l Level) Full() bool { return l == LevelDefault || l == LevelStrict }

// ConfineOption is confine, as a vassal has it and as the default of all.
func ConfineOption[C any](field func(*C) *Level, note func(*C, ini.Pair), meaning string) ini.Option[C] {
	return ini.Option[C]{
		Name: "confine", Kind: ini.Text, Since: "0.1",
		Meaning: "strict, default, compat or none: how far the app is confined" + meaning,
		Set: func(c *C, p ini.Pair) error {
			l := Level(p.Value)
			if err := l.check(); err != nil {
				return err
			}
			*field(c) = l
			note(c, p)
			return nil
		},
	}
}

func (l Level) check() error {
	if l != "" && !slices.Contains(levels, l) {
		return fmt.Errorf("unknown level %.100q; want strict, default, compat or none", string(l))
	}
	return nil
}

// Confine is what an ini says of the app's confinement.
type Confine struct {
	Level    Level    `json:"level,omitempty"` // empty: as the emperor's ini says, or the kind of vassal
	Writable []Place  `json:"writable,omitempty"`
	Binds    []Bind   `json:"binds,omitempty"`
	Ports    []uint16 `json:"ports,omitempty"` // of TCP, that the app may listen on
}

// Place is a file or folder that the app may write.
type Place struct {
	Path string  `json:"path"`
	Pos  ini.Pos `json:"pos"`
}

// Bind is a file or folder of the host's that the app finds at a path.
type Bind struct {
	Source   string  `json:"source"`
	Target   string  `json:"target"`
	ReadOnly bool    `json:"read_only,omitempty"`
	Pos      ini.Pos `json:"pos"`
}

// maxPlaces bounds what an ini may name.
const maxPlaces = 100

// confineOptions are part of Options.
var confineOptions = []ini.Option[Config]{
	ConfineOption(func(c *Config) *Level { return &c.Confine.Level }, func(c *Config, p ini.Pair) { c.Isolation.note("confine", p.Pos) },
		" (default in native networks and in tyrant mode, else compat, which is uWSGI's way)"),
	{
		Name: "writable", Kind: ini.Path, Since: "0.1", Repeats: true, Set: addWritable,
		Meaning: "a file or folder that the app may write where its confinement leaves nothing writable but /tmp, /var/tmp, /dev/shm of its own",
	},
	{
		Name: "bind", Kind: ini.Path, Since: "0.1", Repeats: true, Set: addBind,
		Meaning: "SRC[:DST][:ro]: a file or folder of the host's that the app finds at DST (SRC), to write unless ro says otherwise",
	},
	{
		Name: "rootfs", Kind: ini.Path, Since: "0.1", Set: isolated("rootfs", setRootfs),
		Meaning: "the folder that is the app's root, such as one that debootstrap made: read-only but for what writable names in it, with /dev, /proc, /sys, /tmp and /run of its own where it has such folders",
	},
	{
		Name: "listen-ports", Kind: ini.List, Since: "0.1", Repeats: true, Set: addPorts,
		Meaning: "the only TCP ports that the app may listen on (all; under strict those that it publishes)",
	},
	usersOption,
}

func setRootfs(i *Isolation, p ini.Pair) error {
	if err := checkPlace("rootfs", p.Value); err != nil {
		return err
	}
	if i.Root != "" && !i.Rootfs {
		return errTwoRoots
	}
	i.Root, i.Rootfs = filepath.Clean(p.Value), true
	return nil
}

var errTwoRoots = errors.New("rootfs and namespace both name the app's root; leave one of them out")

func addWritable(c *Config, p ini.Pair) error {
	w := Place{Path: filepath.Clean(p.Value), Pos: p.Pos}
	if err := checkPlace("writable", p.Value); err != nil {
		return err
	}
	c.Confine.Writable = append(c.Confine.Writable, w)
	return nil
}

func addBind(c *Config, p ini.Pair) error {
	b := Bind{Pos: p.Pos}
	words := strings.Split(p.Value, ":")
	if last := words[len(words)-1]; len(words) > 1 && (last == "ro" || last == "rw") {
		b.ReadOnly, words = last == "ro", words[:len(words)-1]
	}
	if len(words) > 2 {
		return fmt.Errorf("bind %.100q: want SRC[:DST][:ro]", p.Value)
	}
	for _, path := range words {
		if err := checkPlace("bind", path); err != nil {
			return err
		}
	}
	b.Source, b.Target = filepath.Clean(words[0]), filepath.Clean(words[len(words)-1])
	c.Confine.Binds = append(c.Confine.Binds, b)
	return nil
}

func addPorts(c *Config, p ini.Pair) error {
	for word := range strings.FieldsFuncSeq(p.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.ParseUint(word, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("listen-ports: %q is no port; want numbers from 1 to 65535, such as 8080,9090", word)
		}
		c.Confine.Ports = append(c.Confine.Ports, uint16(n))
	}
	c.Isolation.note("listen-ports", p.Pos)
	return nil
}

func checkPlace(option, path string) error {
	switch {
	case !filepath.IsAbs(path) || len(path) > maxPath || hasNUL(path):
		return fmt.Errorf("%s %.100q: want an absolute path of at most %d bytes", option, path, maxPath)
	case filepath.Clean(path) == "/":
		return fmt.Errorf("%s = /: that is everything; name the places that the app needs, or write confine = compat", option)
	case Under(path, "/proc") || Under(path, "/sys"):
		return fmt.Errorf("%s %.100q: the app has a /proc and a /sys of its own, of which nothing is given away; write confine = compat", option, path)
	}
	return nil
}

// Under says whether a path is a folder or something below it.
func Under(path, folder string) bool {
	rel, err := filepath.Rel(folder, filepath.Clean(path))
	return err == nil && filepath.IsLocal(rel)
}

// checkConfine says what no parser can have given.
func (c *Config) checkConfine() error {
	k := &c.Confine
	if err := k.Level.check(); err != nil {
		return err
	}
	if len(k.Writable)+len(k.Binds) > maxPlaces || len(k.Ports) > maxPublishPorts {
		return fmt.Errorf("%d places and %d ports; at most %d and %d are allowed", len(k.Writable)+len(k.Binds), len(k.Ports), maxPlaces, maxPublishPorts)
	}
	var errs []error
	for _, w := range k.Writable {
		errs = append(errs, checkPlace("writable", w.Path))
	}
	for _, b := range k.Binds {
		errs = append(errs, checkPlace("bind", b.Source), checkPlace("bind", b.Target))
	}
	return errors.Join(errs...)
}

// Named are the absolute paths in what the ini has the app do: its command, its
// environment, the options of a uwsgi. Whoever names them means to have them read.
func (c *Config) Named() (paths []string) {
	texts := slices.Concat(c.Args(), c.Env, []string{c.BinaryPath})
	for _, p := range slices.Concat(c.App, c.Pushed) {
		texts = append(texts, p.Value)
	}
	for _, d := range c.Attached {
		texts = append(texts, d.Command, d.Chdir)
	}
	for _, h := range c.Hooks {
		if h.Phase == AsUser {
			texts = append(texts, h.Args)
		}
	}
	texts = slices.Concat(texts, c.Health.Command, c.Ready.Command)
	for _, text := range texts {
		for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune("=:,;&|<>() \t\n'\"", r) }) {
			if path := filepath.Clean(word); filepath.IsAbs(word) && !slices.Contains(paths, path) && len(paths) < maxPlaces {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// Confined is what a Plan has of the confinement of a full level: everything
// resolved.
type Confined struct {
	Level    Level    `json:"level"`
	Writable []string `json:"writable,omitempty"`
	Binds    []Bind   `json:"binds,omitempty"`
	Reads    []string `json:"reads,omitempty"`   // folders that it reads and executes, beside the system's
	Named    []string `json:"named,omitempty"`   // paths that it was told of, and reads where that is not too much
	Hidden   []string `json:"hidden,omitempty"`  // folders and files that nobody may see, beside the usual ones
	Guarded  []string `json:"guarded,omitempty"` // folders of which no place may be a part
	Counted  bool     `json:"counted,omitempty"` // it may listen on Ports alone
	Ports    []uint16 `json:"ports,omitempty"`
	Shared   bool     `json:"shared,omitempty"` // the network namespace is the host's
	Owner    bool     `json:"owner,omitempty"`  // places are opened with the app's rights, as an owner's ini names them

	// Of who joins, whose plan tells neither: the root is the ini's, and hooks may have mounted.
	OwnRoot bool `json:"own_root,omitempty"`
	Hooked  bool `json:"hooked,omitempty"`

	Filter []byte `json:"filter,omitempty"` // of system calls; made for each start
}

// Sees says whether the app reads a path by what else it may read or write.
func (k *Confined) Sees(path string) bool {
	below := func(folder string) bool { return Under(path, folder) }
	return slices.ContainsFunc(systemTrees, below) || slices.ContainsFunc(k.Writable, below) || slices.ContainsFunc(k.Reads, below) ||
		slices.ContainsFunc(k.Binds, func(b Bind) bool { return below(b.Target) })
}

// Strict says whether what is missing refuses the start.
func (k *Confined) strict() bool { return k.Level == LevelStrict }

// joining is the confinement of a process that joins those of a plan.
func (k *Confined) joining(of *Plan) *Confined {
	if k == nil {
		return nil
	}
	with := *k
	with.OwnRoot, with.Hooked = of.ownRoot(), of.hooked()
	return &with
}

// ownRoot says whether the root is one that the ini brings.
func (plan *Plan) ownRoot() bool {
	return plan.Isolation.OwnRoot(plan.Chroot) || plan.Confined != nil && plan.Confined.OwnRoot
}

// hooked says whether hooks of root's may have mounted something.
func (plan *Plan) hooked() bool {
	byRoot := func(h Hook) bool { return h.Phase != AsUser }
	return slices.ContainsFunc(plan.Hooks, byRoot) || plan.StartHook != nil && !plan.StartHook.AsUser || plan.Confined != nil && plan.Confined.Hooked
}
