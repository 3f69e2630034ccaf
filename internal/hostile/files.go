package hostile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var fileRows = []Row{
	{
		"secret-files", "files", "reads the host's passwords and keys: shadow, sudoers, keytabs, host keys of SSH",
		"their permissions; a mask over each", func(*Site) Finding {
			return anyOf(existing("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d/*", "/etc/krb5.keytab",
				"/etc/ssh/ssh_host_*_key", "/etc/ssl/private/*", "/etc/security/opasswd"), hasContent)
		},
	},
	{
		"roots-alone", "files", "reads files in /etc that only root, or a group, may read",
		"their permissions; for an app of uid 0 a mask over each", func(*Site) Finding { return anyOf(closed("/etc"), hasContent) },
	},
	{
		"secret-folders", "files", "lists folders with secrets: of root, of Docker, WireGuard, certificates, of the emperor's state and inis",
		"a mask over each", func(s *Site) Finding {
			return anyOf(append(existing("/root", "/etc/ssl/private", "/etc/fiefdom", "/etc/docker", "/etc/wireguard",
				"/etc/letsencrypt/live", "/etc/letsencrypt/archive", "/etc/letsencrypt/accounts", "/var/lib/fiefdom", "/var/lib/docker"), s.Folders...), lists)
		},
	},
	{
		"host-files", "files", "reads what others left in the host's /tmp, /var/tmp, /dev/shm and /run, for all to read",
		"private ones in their place", func(s *Site) Finding { return anyOf(s.Planted, hasContent) },
	},
	{
		"names", "files", "learns names, sizes and times of other apps' files",
		ownTop, func(s *Site) Finding { return anyOf(s.Apps, isThere) },
	},
	{
		"write-system", "files", "makes files in /etc, /usr, /opt, /srv, /var, /boot, /home, /",
		"mounts that are read-only; Landlock", func(*Site) Finding {
			return anyOf([]string{
				"/", "/bin", "/usr", "/usr/bin", "/usr/lib", "/usr/local/bin", "/etc", "/etc/cron.d", "/etc/profile.d", "/etc/systemd/system", "/opt", "/srv",
				"/home", "/boot", "/lib/modules", "/var", "/var/lib", "/var/log", "/var/spool/cron", "/var/mail", "/mnt", "/media", "/lost+found",
			}, makesFile)
		},
	},
	{
		"own-program", "files", "overwrites or replaces its own program, which runs again at the next start",
		"mounts that are read-only; Landlock", func(*Site) Finding {
			self, err := os.Executable()
			if err != nil {
				return unclear("%v", err)
			}
			if f := makesFile(filepath.Dir(self)); f.Outcome == Escaped {
				return f
			}
			return overwrites(self)
		},
	},
	{
		"emperors-program", "files", "overwrites the emperor's binary: by its path, and as /proc/PID/exe of its pid 1 and of every ancestor",
		"mounts that are read-only; processes of its own namespace; who may trace whom", func(s *Site) Finding {
			paths := append(existing("/proc/1/exe", "/usr/bin/fiefdom", "/usr/local/bin/fiefdom"), s.Program)
			for _, pid := range ancestors(s.top) {
				paths = append(paths, procPath(pid, "exe"))
			}
			return anyOf(paths, overwrites)
		},
	},
	{
		"file-handle", "files", "opens a file by its handle, past the folders above it and whatever covers it (open_by_handle_at)",
		"seccomp; no capability", func(*Site) Finding { return byHandle() },
	},
	{
		"setuid", "files", "runs a program of root's with the setuid bit",
		"no_new_privs; mounts that are nosuid", func(s *Site) Finding { return gains(s.Setuid, "setuid") },
	},
	{
		"file-capabilities", "files", "runs a program with file capabilities",
		"no_new_privs; an empty bounding set", func(s *Site) Finding { return gains(s.Capable, "capable") },
	},
}

// closed are the files below a folder that not everybody may read.
func closed(dir string) (all []string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // where it may not look, there is nothing to be tried
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() && info.Mode()&0o004 == 0 {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// overwrites gives a program the size that it has. Of a program that runs the
// kernel says so only to those who may write it, unlike at open.
func overwrites(path string) Finding {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil {
		err = unix.Truncate(path, st.Size)
	}
	if errors.Is(err, unix.ENOENT) {
		return absent("%v", err)
	}
	return judge(err, unix.ETXTBSY)
}

// isThere looks at what a name tells of a file.
func isThere(path string) Finding {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return absent("%v", err)
	case err != nil:
		return contained("%v", err)
	}
	return escaped("%s is of %s, %s", path, info.ModTime(), info.Mode())
}

// hasContent reads a byte of a file: a mask has none.
func hasContent(path string) Finding {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return absent("%v", err)
	case err != nil:
		return contained("%v", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return lists(path)
	}
	n, err := f.Read(make([]byte, 1))
	switch {
	case n > 0:
		return escaped("it reads %s", path)
	case err == nil || errors.Is(err, io.EOF):
		return contained("%s is empty", path)
	}
	return contained("%v", err)
}

// lists says whether a folder shows anything.
func lists(dir string) Finding {
	entries, err := os.ReadDir(dir)
	switch {
	case len(entries) > 0:
		return escaped("%s has %d entries", dir, len(entries))
	case errors.Is(err, os.ErrNotExist):
		return absent("%v", err)
	case err != nil:
		return contained("%v", err)
	}
	return contained("%s is empty", dir)
}

// makesFile makes a file in a folder: without a name if the file system can do
// that, so that nobody sees it, else with one that it takes away again.
func makesFile(dir string) Finding {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		name := filepath.Join(dir, ".of-hostile")
		if fd, err = unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600); err == nil {
			_ = os.Remove(name)
		}
	}
	switch {
	case errors.Is(err, unix.ENOENT):
		return absent("%v", err)
	case err != nil:
		return contained("%s: %v", dir, err)
	}
	_ = unix.Close(fd)
	return escaped("it makes files in %s", dir)
}

// byHandle opens a harmless file by its handle, from a descriptor of any mount.
func byHandle() Finding {
	return anyOf([]string{"/etc/passwd", "/proc/self/exe", "/tmp", "/run", "/usr/bin/env"}, func(path string) Finding {
		handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOVERFLOW):
			return absent("%v", err)
		case refused(err):
			// The handle is guessed then, as the exploits did: any will do for the question who may.
			handle = unix.NewFileHandle(1, make([]byte, 8))
		case err != nil:
			return unclear("%v", err)
		}
		mount, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return contained("%v", err)
		}
		defer unix.Close(mount)
		fd, err := unix.OpenByHandleAt(mount, handle, unix.O_PATH|unix.O_CLOEXEC)
		if err == nil {
			_ = unix.Close(fd)
		}
		return judge(err, unix.ESTALE, unix.EINVAL)
	})
}
