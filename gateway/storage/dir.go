package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ownDir makes dir, or refuses one that somebody else could put files into.
func ownDir(dir string) error {
	if dir == "" {
		return errors.New("no data directory is named")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("the data directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("the data directory %s can be written by others (mode %04o): run chmod go-w %[1]s", dir, mode)
	}
	return nil
}

// lockDir takes the advisory lock of a data directory. The kernel gives it back when
// the process ends, however it ends.
func lockDir(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		var pid [16]byte
		n, _ := f.ReadAt(pid[:], 0)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by the process with pid %s: stop it, or give this one a directory of its own",
				filepath.Dir(file), strings.TrimSpace(string(pid[:n])))
		}
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", file, err)
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// giveAway gives a file that root makes in somebody's directory to its owner, as the
// gate that runs as that owner has to read it.
func giveAway(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var of unix.Stat_t
	if err := unix.Stat(filepath.Dir(f.Name()), &of); err != nil {
		return err
	}
	return f.Chown(int(of.Uid), int(of.Gid))
}

// syncDir makes what was renamed or created in dir last.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
