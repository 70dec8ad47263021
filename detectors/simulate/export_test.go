package simulate

import (
	"math/rand/v2"
	"time"
)

// OfficePlan is the plan of an office as text-free values: who, when, what first.
func OfficePlan(o Office, window time.Duration, seed uint64) ([]Visit, error) {
	visits, err := o.plan(window, seed)
	var all []Visit
	for _, v := range visits {
		all = append(all, Visit{v.person, v.at, v.typo, v.retry})
	}
	return all, err
}

type Visit struct {
	Person int
	At     time.Duration
	Typo   string
	Retry  time.Duration
}

func ListPlan(l List, seed uint64) ([][2]string, error) {
	pairs, err := l.plan(seed)
	var all [][2]string
	for _, p := range pairs {
		all = append(all, [2]string{p.name, p.password})
	}
	return all, err
}

func Mistyped(seed uint64, password string) string {
	return mistyped(rand.New(rand.NewPCG(seed, 0)), password)
}

// Read is how an answer is taken: by whom, and as what.
func Read(status int, contentType string, body []byte) (gate bool, verdict string) {
	a := read(status, contentType, body)
	return a.gate, [...]string{"lost", "accepted", "wrong", "refused", "step-up"}[a.verdict]
}
