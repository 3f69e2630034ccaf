package emperor

import (
	"os"
	"path/filepath"
)

// workDir is where the emperor's own commands about an ini run: in its folder,
// as uWSGI's do. In tyrant mode that is so only where nobody but root can put
// files: a relative name in a command must not mean a tenant's program.
func (c *Config) workDir(path string) string {
	dir := filepath.Dir(path)
	if !c.Tyrant {
		return dir
	}
	const byOthers = 0o022
	st, err := os.Stat(dir)
	if err != nil || ownerOf(st).uid != 0 || st.Mode().Perm()&byOthers != 0 {
		return "/"
	}
	return dir
}
