package record

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is what the writer does with the file system.
type disk interface {
	// create makes a file that is not there yet.
	create(path string) (file, error)
	// open opens a file for reading and writing.
	open(path string) (file, error)
	// publish gives a file its name, durably: after a crash it is there whole, or not.
	publish(from, to string) error
	// remove removes a file, if it is there.
	remove(path string) error
	// reserve makes path take size bytes of the disk, durably. With 0 it gives them back.
	reserve(path string, size int64) error
	// free is how many bytes the file system of dir has left for us.
	free(dir string) (int64, error)
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes all that was written durable (fdatasync).
	Sync() error
	// Forget drops what is cached, so that reading asks the disk.
	Forget() error
}

// system is the real one.
type system struct{}

type systemFile struct{ *os.File }

func (system) create(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return systemFile{f}, err
}

func (system) open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	return systemFile{f}, err
}

func (system) publish(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func (system) remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d system) reserve(path string, size int64) error {
	if size == 0 {
		return d.remove(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			err = fillUp(f, size)
		}
		return errors.Join(err, f.Truncate(size)) // a larger one from before shrinks
	}
}

// fillUp does by writing what some file systems cannot do at once. What it writes
// is random, since zeros take no room where a file system compresses.
func fillUp(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	if _, err := io.Copy(f, io.LimitReader(rand.Reader, size)); err != nil {
		return err
	}
	return f.Sync() // some find only now that there is no room
}

func (system) free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

func (f systemFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

func (f systemFile) Forget() error {
	return os.NewSyscallError("fadvise", unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes a directory for this process alone, by a lock of the open file
// (fcntl(2), F_OFD_SETLK). The kernel gives it back when the process ends, however
// it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the record: %w", err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("%w: %s: stop the gate that writes there, or give this one a directory of its own", ErrInUse, dir)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return f, nil
}

// inUse reports whether some process writes the record, without a lock that could
// be in the way of one.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	held := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &held) == nil && held.Type != unix.F_UNLCK
}
