package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"fiefdom/internal/logfile"
)

// Logging is what becomes of a log beside the file that logto names: of a
// vassal's output, and in the same words of the emperor's own log.
type Logging struct {
	MaxSize    int64         `json:"max_size,omitempty"` // bytes; 0: no bound
	MaxAge     time.Duration `json:"max_age,omitempty"`  // 0: no bound
	Backups    *int          `json:"backups,omitempty"`  // nil: the default; 0: all
	BackupName string        `json:"backup_name,omitempty"`
	Compress   bool          `json:"compress,omitempty"`
	Truncate   bool          `json:"truncate,omitempty"` // at each start
	Reopen     bool          `json:"reopen,omitempty"`   // at a reload of the app by itself
	Late       bool          `json:"late,omitempty"`     // logto2: with the app's rights
	Syslog     bool          `json:"syslog,omitempty"`

	TouchReopen []string `json:"touch_reopen,omitempty"`
	TouchRotate []string `json:"touch_rotate,omitempty"`
}

const (
	defaultBackups = 10
	maxBackups     = 10_000
	maxTouches     = 16
	maxBackupName  = 200 // NAME_MAX less what compression adds
	maxLogAge      = 100 * 365 * 24 * time.Hour
)

// Rules are those of the file.
func (l *Logging) Rules() logfile.Rules {
	r := logfile.Rules{MaxSize: l.MaxSize, MaxAge: l.MaxAge, Backups: defaultBackups, BackupName: l.BackupName, Compress: l.Compress}
	if l.Backups != nil {
		r.Backups = *l.Backups
	}
	return r
}

// Check says what is wrong with the options of a log, and brings the backup's
// name into the form that the rules want: a name in the log's folder.
func (l *Logging) Check(logTo string) error {
	if name := l.BackupName; name != "" {
		if filepath.IsAbs(name) && filepath.Dir(name) == filepath.Dir(logTo) {
			name = filepath.Base(name)
		}
		if name != filepath.Base(name) || name == "." || name == ".." || name == "/" || name == filepath.Base(logTo) || len(name) > maxBackupName || hasNUL(name) {
			return fmt.Errorf("log-backupname %.100q: want a name in the folder of logto, another than the log's", l.BackupName)
		}
		l.BackupName = name
	}
	switch {
	case l.MaxSize < 0 || l.MaxSize != 0 && l.MaxSize < logfile.MinSize || l.MaxAge < 0 || l.MaxAge > maxLogAge:
		return errors.New("log-maxsize or log-maxage is out of range")
	case l.Backups != nil && (*l.Backups < 0 || *l.Backups > maxBackups):
		return fmt.Errorf("log-backups: want at most %d", maxBackups)
	case len(l.TouchReopen)+len(l.TouchRotate) > maxTouches:
		return fmt.Errorf("more than %d files in touch-logreopen and touch-logrotate", maxTouches)
	}
	for _, path := range slices.Concat(l.TouchReopen, l.TouchRotate) {
		if !filepath.IsAbs(path) || len(path) > maxPath || hasNUL(path) {
			return fmt.Errorf("touch-logreopen or touch-logrotate %.100q: want an absolute path", path)
		}
	}
	return nil
}

// openLog opens the log in its folder, which becomes the log's. The rights
// that count are the owner's under tyrant, the app's with logto2, else those of
// the folder's owner: what root does in somebody's folder, he could lead astray.
func (plan *Plan) openLog(folder *os.File) (*logfile.File, error) {
	p := logfile.Place{Folder: folder, Name: filepath.Base(plan.LogTo)}
	if plan.LogUID > 0 {
		p.As = plan.LogRights()
	} else {
		var st unix.Stat_t
		if err := unix.Fstat(int(folder.Fd()), &st); err != nil {
			return nil, errors.Join(err, folder.Close())
		}
		if st.Uid != 0 {
			p.As, p.Inherit = RightsOf(int(st.Uid), int(st.Gid)), true
		}
	}
	return logfile.Open(p, plan.Logging.Rules(), plan.Logging.Truncate)
}

// LogRights are those that LogUID has over files.
func (plan *Plan) LogRights() func(do func() error) error {
	_, gid := plan.OnDisk()
	return RightsOf(plan.LogUID, gid)
}

// OpenLog opens the log by its path, without an init stage that finds its
// folder: the emperor's own, or that of a vassal which runs already.
func (plan *Plan) OpenLog(truncate bool) (*logfile.File, error) {
	var folder *os.File
	find := func() (err error) { folder, err = plan.logFolder(); return err }
	as := func(do func() error) error { return do() }
	if plan.LogUID > 0 {
		as = plan.LogRights()
	}
	if err := as(find); err != nil {
		return nil, err
	}
	again := *plan
	again.Logging.Truncate = truncate
	return again.openLog(folder)
}

// OpenLogIn goes on with the log in its folder, which is the callee's from then
// on: that of a vassal whose emperor was killed.
func (plan *Plan) OpenLogIn(folder *os.File) (*logfile.File, error) {
	again := *plan
	again.Logging.Truncate = false
	return again.openLog(folder)
}

// RightsOf runs functions with a user's rights to files and no others, on
// threads that end with them: what he may not make or remove, the kernel does not
// let us make or remove for him, wherever his links point.
func RightsOf(uid, gid int) func(do func() error) error {
	return func(do func() error) error {
		result := make(chan error, 1)
		go func() { // waited for right below
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			err := seeFilesAs(uid, gid)
			if err == nil {
				err = do()
			}
			result <- err
		}()
		return <-result
	}
}
