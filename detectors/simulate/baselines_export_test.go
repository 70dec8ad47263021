package simulate

// Remembered is how many addresses or names a baseline holds.
func Remembered(d Defense) int {
	switch d := d.(type) {
	case *leakyBan:
		return len(d.addresses.all)
	case *requestRate:
		return len(d.addresses.all)
	case *lockout:
		return len(d.names.all)
	}
	return 0
}
