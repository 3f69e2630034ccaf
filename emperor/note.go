package emperor

import (
	"time"

	"fiefdom/vassal"
)

// note is what the vault keeps of a vassal for the next emperor: all that the
// loop knows of it. Of a newer or older emperor's note what is not known is
// ignored, and what is missing is zero.
type note struct {
	Name  string    `json:"name"`
	File  fileNote  `json:"file"`
	State State     `json:"state"`
	Since time.Time `json:"since"`
	Then  action    `json:"then,omitempty"`

	Dethroned bool `json:"dethroned,omitempty"`

	Config  *vassal.Config `json:"config"`
	Door    string         `json:"door,omitempty"` // of Config
	Running *vassal.Config `json:"running,omitempty"`

	OOMKills uint64 `json:"oom_kills,omitempty"`

	LastEnd   string    `json:"last_end,omitempty"`
	LastEndAt time.Time `json:"last_end_at"`

	Error    string        `json:"error,omitempty"`
	Warnings []string      `json:"warnings,omitempty"`
	Deaths   int           `json:"deaths,omitempty"`
	Wait     time.Duration `json:"wait,omitempty"` // of a back-off, from At
	At       int64         `json:"at"`             // when this was written, by vassal.Monotonic
	Dates    datesNote     `json:"dates"`
	Launches int           `json:"launches"`
	Starts   int           `json:"starts"`
	Renewals int           `json:"renewals,omitempty"`
	Readings int           `json:"readings,omitempty"`
	UID      int           `json:"uid"`
	HookPID  int           `json:"hook_pid,omitempty"`

	Limits  vassal.Resources `json:"limits"` // in force
	Said    saidNote         `json:"said"`
	Options []byte           `json:"options,omitempty"`
	Jailed  bool             `json:"jailed,omitempty"`  // it has a jail
	Jail    uint64           `json:"jail,omitempty"`    // the inode of its namespace; 0: the emperor's own
	DoorAt  string           `json:"door_at,omitempty"` // the address of the door that the generation has

	Generation *vassal.GenerationRecord `json:"generation,omitempty"`
	Processes  []processNote            `json:"processes,omitempty"`
	Cron       [2]time.Time             `json:"cron"` // the clock of its jobs
}

type fileNote struct {
	Path     string    `json:"path"`
	Section  string    `json:"section,omitempty"`
	Owner    [2]uint32 `json:"owner"`
	ID       idNote    `json:"id"`
	Skeleton bool      `json:"skeleton,omitempty"`
	Refused  string    `json:"refused,omitempty"`
	Door     string    `json:"door,omitempty"`
	DoorID   idNote    `json:"door_id"`
}

type idNote struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Mtime int64  `json:"mtime"`
	Size  int64  `json:"size"`
}

type datesNote struct {
	Born       time.Time     `json:"born"`
	FirstRun   time.Time     `json:"first_run"`
	LastRun    time.Time     `json:"last_run"`
	FirstDeath time.Time     `json:"first_death"`
	LastDeath  time.Time     `json:"last_death"`
	Delay      time.Duration `json:"delay"`
}

type saidNote struct {
	Ready     bool `json:"ready,omitempty"`
	Accepting bool `json:"accepting,omitempty"`
	Loyal     bool `json:"loyal,omitempty"`
	Reloading bool `json:"reloading,omitempty"`
	Beats     bool `json:"beats,omitempty"` // its heartbeats are expected
	Begged    bool `json:"begged,omitempty"`
	Served    bool `json:"served,omitempty"`

	ReadyAt    time.Time `json:"ready_at"`
	AcceptedAt time.Time `json:"accepted_at"`
	LoyalAt    time.Time `json:"loyal_at"`
	BeatAt     time.Time `json:"beat_at"`
}

// processNote is what is kept of a process of a crew, its runs aside.
type processNote struct {
	Name    string        `json:"name"`
	State   State         `json:"state"`
	Since   time.Time     `json:"since"`
	Error   string        `json:"error,omitempty"`
	Deaths  int           `json:"deaths,omitempty"`
	Wait    time.Duration `json:"wait,omitempty"`
	Started int           `json:"started"`
	Ran     int           `json:"ran"`
}

// runNote is what is kept of a run of a crew's process.
type runNote struct {
	Vassal     string                  `json:"vassal"`
	Process    string                  `json:"process"`
	ID         string                  `json:"id"`
	PID        int                     `json:"pid"`
	Generation vassal.GenerationRecord `json:"generation"`
}

// doorNote is what is kept of an open door.
type doorNote struct {
	Vassal  string     `json:"vassal"`
	Address string     `json:"address"`
	As      *[2]uint32 `json:"as,omitempty"`
	Dev     uint64     `json:"dev"`
	Ino     uint64     `json:"ino"`
}

// note describes the vassal as the loop knows it now, its generation aside.
func (v *member) note() note {
	n := note{
		Name: v.name, File: v.file.note(), State: v.state, Since: v.since, Then: v.then, Dethroned: v.dethroned,
		Config: v.config, Door: v.config.Door, Running: v.running, Error: v.err, Warnings: v.warnings,
		Deaths: v.backoff.deaths, Launches: v.launches, Starts: v.starts, Renewals: v.renewals, Readings: v.readings,
		OOMKills: v.shortage.killed, LastEnd: v.last.why, LastEndAt: v.last.at, UID: v.uid, Limits: v.limits, HookPID: v.errands.pid, Options: v.options, Cron: [2]time.Time{v.clock.last, v.clock.high},
		Dates: datesNote{v.dates.born, v.dates.firstRun, v.dates.lastRun, v.dates.firstDeath, v.dates.lastDeath, v.dates.delay},
		Said: saidNote{
			v.said.ready, v.said.accepting, v.said.loyal, v.said.reloading, v.said.pulse != nil, v.said.begged, v.said.served,
			v.said.readyAt, v.said.acceptedAt, v.said.loyalAt, v.said.beatAt,
		},
		At: vassal.Monotonic(),
	}
	if v.begins && v.state == Stopped {
		n.State = Starting
	}
	if v.state == Backoff {
		n.Wait = time.Until(v.due)
	}
	if v.jail != nil {
		n.Jailed, n.Jail = true, v.jail.Inode
	}
	if v.door != nil {
		n.DoorAt = v.door.address.String()
	}
	if v.crew == nil {
		return n
	}
	for _, p := range v.crew.processes {
		pn := processNote{Name: p.name(), State: p.state, Since: p.since, Error: p.err, Deaths: p.backoff.deaths, Started: p.started, Ran: p.ran}
		if p.state == Backoff {
			pn.Wait = time.Until(p.due)
		}
		n.Processes = append(n.Processes, pn)
	}
	return n
}

func (f iniFile) note() fileNote {
	return fileNote{
		Path: f.path, Section: f.section, Owner: [2]uint32{f.owner.uid, f.owner.gid}, ID: f.id.note(),
		Skeleton: f.skeleton, Refused: f.refused, Door: f.door, DoorID: f.doorID.note(),
	}
}

func (n fileNote) file(name string) iniFile {
	return iniFile{
		name: name, path: n.Path, section: n.Section, owner: owner{n.Owner[0], n.Owner[1]}, id: n.ID.id(),
		skeleton: n.Skeleton, refused: n.Refused, door: n.Door, doorID: n.DoorID.id(),
	}
}

func (id fileID) note() idNote { return idNote{id.dev, id.ino, id.mtime, id.size} }

func (n idNote) id() fileID { return fileID{n.Dev, n.Ino, n.Mtime, n.Size} }

// event is what brings a vassal that was stopping back on its way.
func (n *note) event() event {
	switch n.Then {
	case launch:
		return restart
	case forget:
		return gone
	case doze:
		return tired
	}
	return stop
}

// left is what is left of a back-off.
func (n *note) left(wait time.Duration) time.Duration {
	return max(0, wait-time.Duration(vassal.Monotonic()-n.At))
}
