package feed

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/detectors"
)

const (
	maxRepeated    = 1000 // attempts that one line may stand for
	maxConnections = 4096 // of which is remembered what was counted; twice as many at most
)

// sshd reads what OpenSSH's server writes to syslog.
//
// A password that was wrong, or whatever was accepted, is an attempt. A connection that
// ends without either is one if it named a user: of unknown outcome, or a failure where
// sshd says that there is no such user or that too much was tried. A refused public key
// is none: clients offer all they have.
//
// The user is what the client sent, so a line is read from its end: a name that
// contains "from 192.0.2.1 port 22" puts no words into sshd's mouth.
type sshd struct {
	stamps stamps
	// What was counted of a connection; the older half is dropped when the newer is full.
	newer, older map[string]counted
}

// counted is what was counted of one connection.
type counted struct {
	attempts bool
	invalid  string // the name of an "Invalid user" line, whose password line may follow
	waits    bool
}

func newSSHD(o Options) *sshd {
	return &sshd{stamps: stamps{year: o.Year, now: o.Now}, newer: map[string]counted{}}
}

// program is "host sshd[123]: message"; newer servers call the part that talks
// sshd-session, and a priority may stand before the line.
var (
	program  = regexp.MustCompile(`^(?:(\S+) +)?sshd(?:-session|-auth)?(?:\[(\d+)\])?: +(.*)$`)
	priority = regexp.MustCompile(`^<\d{1,3}>(?:\d+ )?`)
	repeated = regexp.MustCompile(`^message repeated (\d{1,9}) times: \[ ?(.*)\]$`)
	accepted = regexp.MustCompile(`^Accepted (\S+) for (.*?) from (\S+) port (\d{1,5})(?: |$)`)
	failed   = regexp.MustCompile(`^Failed (\S+) for (invalid user )?(.*) from (\S+)(?: port (\d{1,5}))?(?: ssh\d?)?$`)
	invalid  = regexp.MustCompile(`^(?:Invalid|Illegal) user (?:(.*) )?from (\S+)(?: port (\d{1,5}))?$`)
	tooMany  = regexp.MustCompile(`^(?:error: )?maximum authentication attempts exceeded for (invalid user )?(.*) from (\S+) port (\d{1,5})(?: ssh\d?)?(?: \[preauth\])?$`)
	left     = regexp.MustCompile(`^(?:Connection closed by|Connection reset by|Disconnected from|Disconnecting) (authenticating|invalid) user (.*) (\S+) port (\d{1,5})(?:: .*)?(?: \[preauth\])?$`)
)

func (p *sshd) parse(line []byte, _ *Reader, emit func(Attempt)) error {
	text := priority.ReplaceAllString(string(line), "")
	at, rest, err := p.stamps.cut(text)
	if err != nil {
		return err
	}
	m := program.FindStringSubmatch(rest)
	if m == nil {
		return errIgnored
	}
	host, pid, message, times := m[1], m[2], m[3], 1
	if m := repeated.FindStringSubmatch(message); m != nil {
		n, err := strconv.Atoi(m[1])
		if message = m[2]; err != nil || n < 1 || n > maxRepeated {
			return fmt.Errorf("a message repeated %s times: want 1 to %d", m[1], maxRepeated)
		}
		times = n
	}
	a, err := p.attempt(host, pid, message, at)
	if err == errIgnored && times > 1 {
		times-- // the first of them was counted when its user was called invalid
		a, err = p.attempt(host, pid, message, at)
	}
	if err != nil {
		return err
	}
	for range times {
		emit(a)
	}
	return nil
}

// attempt is what a message tells.
func (p *sshd) attempt(host, pid, message string, at time.Time) (Attempt, error) {
	a := Attempt{Event: detectors.Event{Time: at}}
	set := func(name, address, port string) (key string, err error) {
		a.setName(name)
		if !a.setAddress(address) {
			return "", fmt.Errorf("%.80q: want an IPv4 or IPv6 address", address)
		}
		if port != "" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return "", fmt.Errorf("port %s: want at most 65535", port)
			}
			a.Event.Source.Port = uint16(n)
		}
		if pid != "" {
			return bounded(host) + "[" + bounded(pid) + "] " + address, nil
		}
		return address + " " + port, nil
	}
	if m := accepted.FindStringSubmatch(message); m != nil {
		a.Correct, a.Exists = Yes, Yes
		a.Event.Credential = bounded(m[1])
		key, err := set(m[2], m[3], m[4])
		if err != nil {
			return a, err
		}
		a.Event.Account = detectors.Account(bounded(m[2]))
		p.count(key, counted{attempts: true})
		return a, nil
	}
	if m := failed.FindStringSubmatch(message); m != nil {
		if m[1] == "none" || m[1] == "publickey" || m[1] == "hostbased" {
			return a, errIgnored
		}
		a.Correct, a.Exists = No, existsUnless(m[2])
		a.Event.Credential = bounded(m[1])
		key, err := set(m[3], m[4], m[5])
		if err != nil {
			return a, err
		}
		was := p.counted(key)
		p.count(key, counted{attempts: true})
		if was.waits && was.invalid == nameKey(m[3]) {
			return a, errIgnored // the line that said so was counted
		}
		return a, nil
	}
	if m := invalid.FindStringSubmatch(message); m != nil {
		a.Correct, a.Exists = No, No
		key, err := set(m[1], m[2], m[3])
		if err == nil {
			p.count(key, counted{attempts: true, invalid: nameKey(m[1]), waits: true})
		}
		return a, err
	}
	var missing, name, address, port string
	if m := tooMany.FindStringSubmatch(message); m != nil {
		a.Correct = No
		missing, name, address, port = m[1], m[2], m[3], m[4]
	} else if m := left.FindStringSubmatch(message); m != nil {
		if m[1] == "invalid" {
			missing, a.Correct = m[1], No
		}
		name, address, port = m[2], m[3], m[4]
	} else {
		return a, errIgnored
	}
	a.Exists = existsUnless(missing)
	key, err := set(name, address, port)
	if err != nil {
		return a, err
	}
	if p.counted(key).attempts {
		return a, errIgnored
	}
	p.count(key, counted{attempts: true})
	return a, nil
}

func existsUnless(missing string) Tri { return triOf(missing == "") }

// nameKey is a name for comparing; it is short however long the name is.
func nameKey(name string) string { return digest("name", name).String() }

func (p *sshd) counted(key string) counted {
	if c, ok := p.newer[key]; ok {
		return c
	}
	return p.older[key]
}

func (p *sshd) count(key string, c counted) {
	if _, ok := p.newer[key]; !ok && len(p.newer) >= maxConnections {
		p.newer, p.older = map[string]counted{}, p.newer
	}
	p.newer[key] = c
}
