package storage

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// giveUp ends a TCP connection whose peer acknowledges nothing for 15 s
// (TCP_USER_TIMEOUT, tcp(7)); without it the kernel tries for a quarter of an hour.
func giveUp(network, _ string, c syscall.RawConn) error {
	if network == "unix" {
		return nil
	}
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 15_000)
	})
	return errors.Join(err, set)
}
