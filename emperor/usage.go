package emperor

import (
	"runtime"
	"sync"
	"sync/atomic"

	"fiefdom/vassal"
)

// LimitStatus is what a vassal may use at most; 0 is no limit.
type LimitStatus struct {
	CPUs        float64  `json:"cpus,omitempty"`
	MemoryBytes int64    `json:"memory_bytes,omitempty"`
	PIDs        int      `json:"pids,omitempty"`
	IO          []string `json:"io,omitempty"` // as the ini has it
}

func limitStatus(r *vassal.Resources) *LimitStatus {
	if len(limitsText(r)) == 0 {
		return nil
	}
	s := &LimitStatus{CPUs: float64(max(r.CPU, 0)) / 1000, MemoryBytes: max(r.Memory, 0), PIDs: max(r.PIDs, 0)}
	for _, l := range r.IO {
		s.IO = append(s.IO, l.String())
	}
	return s
}

// AddUsage adds to the statuses of running vassals what they use. It reads a
// few files of each, several vassals at a time.
func AddUsage(all []Status) {
	const most = 4
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), most, len(all)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				all[i].addUsage()
			}
		})
	}
	wg.Wait()
}

func (s *Status) addUsage() {
	if s.generation == nil {
		return
	}
	u := s.generation.RecentUsage()
	s.MemoryBytes, s.PIDs = u.Memory, u.PIDs
	s.CPUSeconds, s.ThrottledSeconds = u.CPU.Seconds(), u.Throttled.Seconds()
}
