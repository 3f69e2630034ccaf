package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

// Bounds of what is asked for at once.
const (
	mostLines  = 10000
	mostEvents = 10000
)

// Rates are the points of the last hour, the oldest first.
type Rates struct {
	Seconds float64   `json:"interval_seconds"` // that each point stands for
	In      []float64 `json:"in"`               // bytes a second that the vassal received
	Out     []float64 `json:"out"`              // bytes a second that it sent
	CPU     []float64 `json:"cpu"`              // CPUs that its processes used
	Memory  []float64 `json:"memory_bytes"`     // at the end of the interval
	Drops   []float64 `json:"drops"`            // packets a second
}

func ratesOf(points []point) Rates {
	return Rates{interval.Seconds(), of(points, pickIn), of(points, pickOut), of(points, pickCPU), of(points, pickMemory), of(points, pickDrops)}
}

// errNoVassal is answered with 404.
var errNoVassal = errors.New("no such vassal")

// api answers with what the pages are made of, as JSON.
func (s *site) api(mux *http.ServeMux) {
	for path, ask := range map[string]func(*http.Request) (any, error){
		"/api/emperor": func(*http.Request) (any, error) { return s.Self(), nil },
		"/api/vassals": func(*http.Request) (any, error) { return s.watch.statuses(s.ctx), nil },
		"/api/vassal": func(r *http.Request) (any, error) {
			one, err := s.find(r)
			return one.Status, err
		},
		"/api/rates": func(r *http.Request) (any, error) {
			if !r.URL.Query().Has("name") {
				_, all := s.watch.rows(s.ctx, none)
				return ratesOf(all), nil
			}
			one, err := s.find(r)
			return ratesOf(one.points), err
		},
		"/api/drops": func(r *http.Request) (any, error) {
			one, err := s.find(r)
			if err != nil || s.Drops == nil {
				return []any{}, err
			}
			return s.Drops(r.Context(), one.Name)
		},
		"/api/logs": func(r *http.Request) (any, error) {
			one, err := s.find(r)
			if err != nil {
				return nil, err
			}
			return s.Logs(one.Name, atMost(r, "last", 1000, mostLines)), nil
		},
		"/api/events": func(r *http.Request) (any, error) {
			return s.Events(r.URL.Query().Get("name"), atMost(r, "last", 1000, mostEvents)), nil
		},
		"/api/networks": func(r *http.Request) (any, error) {
			if s.Networks == nil {
				return []any{}, nil
			}
			return s.Networks(r.Context())
		},
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := ask(r)
			if err != nil {
				failed(w, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(v) // a client that left has no use for it
		})
	}
}

// none chooses no vassal's points.
func none(string) bool { return false }

// find looks up the vassal that a request names, with its points.
func (s *site) find(r *http.Request) (row, error) {
	name := r.URL.Query().Get("name")
	rows, _ := s.watch.rows(s.ctx, func(other string) bool { return name == other })
	i := slices.IndexFunc(rows, func(r row) bool { return r.Name == name })
	if i < 0 {
		return row{}, fmt.Errorf("%w: %q", errNoVassal, name)
	}
	return rows[i], nil
}

// atMost is a number that a request asks for, within its bounds.
func atMost(r *http.Request, key string, usual, most int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(key))
	if err != nil || n < 1 {
		return usual
	}
	return min(n, most)
}

func failed(w http.ResponseWriter, err error) {
	status := http.StatusBadGateway // the router has no answer
	if errors.Is(err, errNoVassal) {
		status = http.StatusNotFound
	}
	http.Error(w, err.Error(), status)
}
