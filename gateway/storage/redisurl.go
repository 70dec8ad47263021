package storage

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	redisURLMax    = 4096 // bytes
	redisSentinels = 16
	redisDBs       = 1 << 14
)

// redisURL is an address taken apart.
type redisURL struct {
	tls                            bool
	addrs                          []string // HOST:PORT; one, or the sentinels
	db                             int
	user, password                 string
	master                         string // "" without sentinels
	sentinelUser, sentinelPassword string
}

// parseRedisURL reads an address by hand: net/url takes no list of hosts, and its
// errors quote what may be a password. Those here quote hosts and the names of
// parameters only.
func parseRedisURL(text string) (u redisURL, err error) {
	defer func() {
		if err != nil {
			u = redisURL{}
		}
	}()
	if len(text) > redisURLMax {
		return u, fmt.Errorf("it has %d bytes, want at most %d", len(text), redisURLMax)
	}
	scheme, rest, ok := strings.Cut(text, "://")
	sentinel := strings.HasSuffix(scheme, "+sentinel")
	switch strings.TrimSuffix(scheme, "+sentinel") {
	case "redis":
	case "rediss":
		u.tls = true
	default:
		ok = false
	}
	if !ok {
		return u, errors.New("it begins with none of redis://, rediss://, redis+sentinel://, rediss+sentinel://")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return u, errors.New("it holds a blank, a control character or a letter outside ASCII: write those as %XX")
	}
	if strings.Contains(rest, "#") {
		return u, errors.New("it holds a #: write %23 in a password")
	}
	rest, query, asks := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, password, ok := strings.Cut(authority[:i], ":")
		authority = authority[i+1:]
		if !ok {
			return u, errors.New("a user without a password: want USER:PASSWORD@, or :PASSWORD@ for the default user")
		}
		if strings.ContainsAny(user+password, "@:") {
			return u, errors.New("the user or password holds : or @: write them as %3A and %40")
		}
		if u.user, err = url.PathUnescape(user); err != nil {
			return u, errors.New("the user holds a % that begins no %XX: write %25")
		}
		if u.password, err = url.PathUnescape(password); err != nil {
			return u, errors.New("the password holds a % that begins no %XX: write %25")
		}
		if u.password == "" {
			return u, errors.New("the password is empty: leave the user out as well, or give it one")
		}
	}
	port := "6379"
	if sentinel {
		port = "26379"
	}
	hosts := strings.Split(authority, ",")
	if len(hosts) > 1 && !sentinel {
		return u, errors.New("several hosts are for sentinels: begin it with redis+sentinel:// or rediss+sentinel://")
	}
	if len(hosts) > redisSentinels {
		return u, fmt.Errorf("it names %d sentinels, want at most %d", len(hosts), redisSentinels)
	}
	for i, h := range hosts {
		addr, ok := hostPort(h, port)
		if !ok {
			return u, fmt.Errorf("host %d is not HOST, HOST:PORT or [IPV6]:PORT (a / in a password is written as %%2F)", i+1)
		}
		u.addrs = append(u.addrs, addr)
	}
	if path != "" {
		if u.db, err = strconv.Atoi(path); err != nil || u.db < 0 || u.db >= redisDBs || strconv.Itoa(u.db) != path {
			return u, fmt.Errorf("what follows the host is not the number of a database, 0 to %d (a / in a password is written as %%2F)", redisDBs-1)
		}
	}
	if asks {
		if err := u.parameters(query, sentinel); err != nil {
			return u, err
		}
	}
	if sentinel && u.master == "" {
		return u, errors.New("the sentinels' name of the primary is missing: end it with ?master=NAME")
	}
	return u, nil
}

func (u *redisURL) parameters(query string, sentinel bool) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("its parameters cannot be read: want NAME=VALUE&NAME=VALUE, with %XX for odd letters (%26 for &, %3B for ;)")
	}
	for name, all := range values {
		field := map[string]*string{"master": &u.master, "sentinel_user": &u.sentinelUser, "sentinel_password": &u.sentinelPassword}[name]
		switch {
		case field == nil:
			// The name may be a piece of a password.
			return errors.New("it has an unknown parameter: known are master, sentinel_user and sentinel_password, all for redis+sentinel:// (a ? in a password is written as %3F)")
		case !sentinel:
			return fmt.Errorf("the parameter %s is for redis+sentinel://", name)
		case len(all) != 1 || all[0] == "":
			return fmt.Errorf("the parameter %s is empty or there twice", name)
		}
		*field = all[0]
	}
	if u.sentinelUser != "" && u.sentinelPassword == "" {
		return errors.New("sentinel_user is there without sentinel_password")
	}
	return nil
}

// hostPort completes HOST or HOST:PORT.
func hostPort(text, port string) (string, bool) {
	host := text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
			return "", false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", false
		}
		return net.JoinHostPort(inner, port), true
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' || r == '_')
	}) {
		return "", false
	}
	return net.JoinHostPort(host, port), true
}
