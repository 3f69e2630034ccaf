package nettest

import (
	"context"
	"os"
	"os/exec"
)

// GoTool is a command of the go tool that builds without the race detector. Its
// flags are those of make build and make lint: what they have compiled it takes
// from the cache, wherever the tree lies, and all but the linking is done.
func GoTool(ctx context.Context, command string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{command, "-trimpath"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd
}
