package emperor

import (
	"net/http"
	"os"
	"runtime"
)

// Self is the emperor's own process.
type Self struct {
	PID        int `json:"pid"`
	Goroutines int `json:"goroutines"`
}

func apiSelf(w http.ResponseWriter, _ *http.Request) {
	answer(w, Self{PID: os.Getpid(), Goroutines: runtime.NumGoroutine()})
}
