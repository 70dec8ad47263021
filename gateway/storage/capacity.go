package storage

import (
	"os"

	"golang.org/x/sys/unix"
)

// Room is the size of a file system in bytes, and what of it is free to users.
type Room struct{ Total, Free int64 }

// Capacity is the room of the file system that a file or directory is on.
func Capacity(path string) (Room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Room{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	return Room{Total: int64(s.Blocks) * int64(s.Bsize), Free: int64(s.Bavail) * int64(s.Bsize)}, nil
}
