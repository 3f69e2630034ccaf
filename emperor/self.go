package emperor

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Self is the emperor's own process.
type Self struct {
	PID        int       `json:"pid"`
	Began      time.Time `json:"began"` // when this program took over
	Version    string    `json:"version"`
	Goroutines int       `json:"goroutines"`
	Instance   string    `json:"instance"`
	Ending     bool      `json:"ending,omitempty"`   // it ends all vassals, then itself
	Folders    []string  `json:"folders"`            // that he looks for inis in, those of patterns aside
	Nameless   string    `json:"nameless,omitempty"` // why vassals' questions for names are not answered
}

func (e *Emperor) apiSelf(w http.ResponseWriter, _ *http.Request) {
	s := e.Self()
	s.Ending = e.isEnding()
	if e.Nameless != nil {
		s.Nameless = e.Nameless()
	}
	answer(w, s)
}

// began is when this program did.
var began = time.Now()

// Self tells of the emperor itself.
func (e *Emperor) Self() Self {
	return Self{
		PID: os.Getpid(), Began: began, Version: e.Version, Goroutines: runtime.NumGoroutine(), Instance: e.Config.Instance, Folders: e.Config.Folders(),
	}
}

// Folders are those whose inis are vassals, in the order of the emperor's ini.
// Patterns and single files are none.
func (c *Config) Folders() []string {
	folders := []string{}
	for _, m := range c.Monitors {
		if m.Pattern != "" || m.Section != "" {
			continue
		}
		dir, err := filepath.Abs(m.Dir)
		if err != nil {
			continue // there is no working directory any more
		}
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			folders = append(folders, dir)
		}
	}
	return folders
}
