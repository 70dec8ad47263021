//go:build !linux

package storage

import "syscall"

// giveUp leaves dead connections to the keep-alive probes of the system.
func giveUp(string, string, syscall.RawConn) error { return nil }
