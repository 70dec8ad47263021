//go:build unix

package breached

import "golang.org/x/sys/unix"

// room is n bytes outside of Go's heap, and what gives them back. As a part of the heap
// they would make the collector wait until several times as much is in use.
func room(n int) (data []byte, free func([]byte), err error) {
	data, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	return data, func(data []byte) { _ = unix.Munmap(data) }, err // it fails for what is no mapping only
}
