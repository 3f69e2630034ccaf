package emperor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/vassal"
)

// Policy is the operator's word about what owners' inis may ask for in tyrant
// mode: sections of an ini, for everybody, for groups and for users. Of each key
// the most specific section counts that has it; of several groups' the first.
type Policy struct {
	sections []policySection
	files    []string          // that it was read from
	asked    map[owner]*bounds // as they were worked out once
}

// The kinds of sections, from the one that yields to all others.
const (
	forEverybody = "policy"
	forGroup     = "group"
	forUser      = "user"
)

type policySection struct {
	header ini.Header
	kind   string
	id     uint32 // of the group or user
	pairs  []ini.Pair
}

// policyOption names the policy's file in the emperor's ini.
var policyOption = ini.Option[Config]{
	Name: "tyrant-policy", Kind: ini.Path, Since: "0.1", Set: setPolicy,
	Meaning: "in tyrant mode, the file that says what owners' inis may ask for at most: sections [policy], [group:NAME] and [user:NAME] with the options of a policy. It is root's; what it does not say is as without it",
}

func setPolicy(c *Config, p ini.Pair) error {
	if !filepath.IsAbs(p.Value) {
		return fmt.Errorf("%s = %s: want an absolute path, such as /etc/fiefdom/policy.ini (%%d is the folder of this file)", p.Key, p.Value)
	}
	c.PolicyFile, c.PolicyPos = filepath.Clean(p.Value), p.Pos
	return nil
}

// ReadPolicy reads the file that tyrant-policy names, if it does. Networks are
// the emperor's. Without errors (warnings aside) the policy is in force.
func (c *Config) ReadPolicy(networks []Network) ini.Errors {
	if c.PolicyFile == "" {
		return nil
	}
	if !c.Tyrant {
		return ini.Errors{{Pos: c.PolicyPos, Message: "tyrant-policy bounds nobody without tyrant mode; write emperor-tyrant = true, or leave it out"}}
	}
	if unreadable(c.PolicyFile) {
		c.Policy = new(Policy)
		return ini.Errors{{Pos: c.PolicyPos, Warning: true, Message: fmt.Sprintf("you may not read %s, so what it allows is not checked", c.PolicyFile)}}
	}
	p, errs := readPolicy(c.PolicyFile)
	if errs.Failed() {
		return errs
	}
	errs = append(errs, p.check(c, networks)...)
	if !errs.Failed() {
		c.Policy = p
	}
	return errs
}

// Files are those that the policy was read from.
func (p *Policy) Files() []string {
	if p == nil {
		return nil
	}
	return p.files
}

// readPolicy reads a policy. It says what is in its files: commands, the network
// and the environment have no part in it.
func readPolicy(path string) (*Policy, ini.Errors) {
	p := new(Policy)
	dir := filepath.Dir(path)
	refused := errors.New("a policy is what its file says, and runs no command")
	f, err := ini.Load(filepath.Base(path), ini.Options{
		Dir: dir, Every: true, IsOption: func(name string) bool { return slices.Contains(policyNames(), name) },
		LookupEnv: func(string) (string, bool) { return "", false },
		Exec:      func(string) ([]byte, error) { return nil, refused },
		ReadFile: func(name string) ([]byte, error) {
			p.files = append(p.files, name)
			real, err := filepath.EvalSymlinks(name)
			if err == nil {
				err = errors.Join(trustedFolder(filepath.Dir(name)), trustedFolder(filepath.Dir(real)))
			}
			if err != nil {
				return nil, err
			}
			return ini.ReadFile(name, trustedFile)
		},
	})
	if err != nil {
		var errs ini.Errors
		if !errors.As(err, &errs) {
			errs = ini.Errors{{Pos: ini.Pos{File: path}, Message: err.Error()}}
		}
		placeAll(dir, errs)
		return nil, errs
	}
	errs := f.Warnings
	f.Strict = true
	errs = append(errs, ini.Unknown(f, func(name string) bool { return slices.Contains(policyNames(), name) }, policyNames(), nil)...)
	byHeader := map[ini.Header]int{}
	for _, h := range f.Headers {
		s, err := parsePolicySection(h)
		if err != nil {
			errs = append(errs, ini.Error{Pos: h.Pos, Message: err.Error()})
			continue
		}
		if i := slices.IndexFunc(p.sections, func(o policySection) bool { return o.kind == s.kind && o.id == s.id }); i >= 0 && h.Pos.File == p.sections[i].header.Pos.File {
			errs = append(errs, ini.Error{Pos: h.Pos, Message: fmt.Sprintf("[%s] is for whom [%s] at line %d is; write what is for one in one section", h.Name, p.sections[i].header.Name, p.sections[i].header.Pos.Line)})
			continue
		}
		byHeader[h] = len(p.sections)
		p.sections = append(p.sections, s)
	}
	for _, pair := range f.Pairs {
		if i, ok := byHeader[f.Section(pair.Pos)]; ok && slices.Contains(policyNames(), pair.Key) {
			place(dir, &pair.Pos)
			p.sections[i].pairs = append(p.sections[i].pairs, pair)
		}
	}
	for i := range p.sections {
		place(dir, &p.sections[i].header.Pos)
		errs = append(errs, p.sections[i].decode(new(bounds))...)
	}
	placeAll(dir, errs)
	return p, errs
}

// trustedFile says why a policy's file is not the operator's word.
func trustedFile(st *unix.Stat_t) error {
	const byGroup, byOthers = 0o020, 0o002
	switch {
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to uid %d, and a policy is root's; chown root it", st.Uid)
	case st.Mode&byOthers != 0 || st.Mode&byGroup != 0 && st.Gid != 0:
		return fmt.Errorf("others than root may write it (mode %03o); chmod go-w it", st.Mode&0o777)
	}
	return nil
}

// trustedFolder says why somebody else could put another file in a policy's place.
func trustedFolder(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("its folder: %w", err)
	}
	if st.Mode&unix.S_ISVTX != 0 && st.Uid == 0 {
		return nil
	}
	if err := trustedFile(&st); err != nil {
		return fmt.Errorf("its folder %s: %w", dir, err)
	}
	return nil
}

// parsePolicySection reads [policy], [user:NAME] and [group:NAME]; a number will
// do for a name.
func parsePolicySection(h ini.Header) (s policySection, err error) {
	kind, name, named := strings.Cut(h.Name, ":")
	s = policySection{header: h, kind: kind}
	switch {
	case h.Name == forEverybody:
		return s, nil
	case !named || name == "" || kind != forUser && kind != forGroup:
		return s, fmt.Errorf("[%s] is no section of a policy; want [policy], [user:NAME] or [group:NAME]", h.Name)
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		s.id = uint32(n)
		return s, nil
	}
	id := ""
	if kind == forUser {
		var u *user.User
		if u, err = user.Lookup(name); err == nil {
			id = u.Uid
		}
	} else {
		var g *user.Group
		if g, err = user.LookupGroup(name); err == nil {
			id = g.Gid
		}
	}
	if err != nil {
		return s, fmt.Errorf("no %s %q on this machine, so nobody knows who is bounded; write the number of one that is not in /etc/passwd and /etc/group", kind, name)
	}
	n, err := strconv.ParseUint(id, 10, 32)
	s.id = uint32(n)
	return s, err
}

// check says what of a good policy makes no sense to this emperor.
func (p *Policy) check(c *Config, networks []Network) (errs ini.Errors) {
	var known []string
	for i := range networks {
		known = append(known, networks[i].Device)
	}
	for i := range c.Bridges {
		known = append(known, bridgeWord(c.Bridges[i].Device))
	}
	for i := range p.sections {
		b := new(bounds)
		_ = p.sections[i].decode(b) // it is good by itself
		for _, name := range b.networks {
			if !slices.Contains(known, name) {
				errs = append(errs, ini.Error{Pos: b.said["network"][0].Pos, Message: fmt.Sprintf(
					"no network %s in the emperor's ini; there are: %s", name, strings.Join(known, " "))})
			}
		}
	}
	return errs
}

// of are the bounds of an owner's inis; nil where there is no policy.
func (p *Policy) of(o owner) *bounds {
	if p == nil {
		return nil
	}
	if b := p.asked[o]; b != nil {
		return b
	}
	b := &bounds{owner: ownerName(o.uid)}
	groups := groupsOf(o)
	var applies []policySection // the most specific first
	for _, kind := range []string{forUser, forGroup, forEverybody} {
		for _, s := range p.sections {
			if s.kind == kind && (kind == forEverybody || kind == forUser && s.id == o.uid || kind == forGroup && slices.Contains(groups, s.id)) {
				applies = append(applies, s)
			}
		}
	}
	said := map[string]bool{}
	for _, s := range applies {
		mine := s
		mine.pairs = slices.DeleteFunc(slices.Clone(s.pairs), func(p ini.Pair) bool { return said[p.Key] })
		for _, p := range mine.pairs {
			said[p.Key] = true
		}
		_ = mine.decode(b) // it was good when it was read
	}
	if p.asked == nil {
		p.asked = map[owner]*bounds{}
	}
	p.asked[o] = b
	return b
}

// names says whether an owner may have a vassal of a name.
func (p *Policy) names(o owner, name string) bool {
	b := p.of(o)
	return !b.says("vassal-names") || b.matches(b.names, name)
}

// ownerName is a user's name, or his number.
func ownerName(uid uint32) string {
	id := strconv.Itoa(int(uid))
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// groupsOf are the ini's own group, and those of its owner.
func groupsOf(o owner) []uint32 {
	groups := []uint32{o.gid}
	u, err := user.LookupId(strconv.Itoa(int(o.uid)))
	if err != nil {
		return groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			groups = append(groups, uint32(n))
		}
	}
	return groups
}

// boundsOf are what the owner of a vassal's ini may ask for; nil: nothing is
// bounded by a policy.
func (e *Emperor) boundsOf(c *vassal.Config) *bounds {
	if !e.Config.Tyrant || c.UID == nil {
		return nil
	}
	return e.Config.Policy.of(owner{uint32(c.UID.ID), uint32(c.UID.Main)})
}

// unreadable says that who only looks at files, and is no emperor, may not read
// the policy.
func unreadable(path string) bool {
	return os.Geteuid() != 0 && errors.Is(unix.Access(path, unix.R_OK), fs.ErrPermission)
}
