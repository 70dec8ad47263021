package once

import (
	"context"
	"sync"
	"time"
)

// Memory is the store of one process. What it remembers ends with the process;
// for signatures that means that one may be used again after a restart, within
// its window.
type Memory struct {
	now func() time.Time

	mu         sync.Mutex // guards what follows
	signatures map[string]time.Time
	acts       map[Act]*memoryAct
	perName    map[string]int // acts by operator
	cleaned    time.Time
}

type memoryAct struct {
	request Request
	done    bool
	answer  Answer
	until   time.Time
}

// NewMemory returns an empty store.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, signatures: make(map[string]time.Time), acts: make(map[Act]*memoryAct), perName: make(map[string]int)}
}

// clean drops what is over, once in a minute or when asked.
func (m *Memory) clean(now time.Time, must bool) {
	if !must && now.Sub(m.cleaned) < time.Minute {
		return
	}
	m.cleaned = now
	for s, until := range m.signatures {
		if until.Add(margin).Before(now) {
			delete(m.signatures, s)
		}
	}
	for a, act := range m.acts {
		if act.until.Before(now) {
			m.drop(a)
		}
	}
}

func (m *Memory) drop(a Act) {
	delete(m.acts, a)
	if m.perName[a.Operator]--; m.perName[a.Operator] <= 0 {
		delete(m.perName, a.Operator)
	}
}

// Seen implements [Store].
func (m *Memory) Seen(_ context.Context, signature string, until time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.clean(now, len(m.signatures) >= maxSignatures)
	if _, seen := m.signatures[signature]; seen {
		return true, nil
	}
	if len(m.signatures) >= maxSignatures {
		return false, ErrFull
	}
	m.signatures[signature] = until
	return false, nil
}

// Begin implements [Store].
func (m *Memory) Begin(_ context.Context, a Act, r Request) (Progress, Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.clean(now, m.perName[a.Operator] >= maxAnswers)
	if act, known := m.acts[a]; known && !act.until.Before(now) {
		switch {
		case act.request != r:
			return Other, Answer{}, nil
		case act.done:
			return Done, act.answer, nil
		}
		return Running, Answer{}, nil
	} else if known {
		m.drop(a)
	}
	if m.perName[a.Operator] >= maxAnswers {
		return New, Answer{}, ErrFull
	}
	m.acts[a] = &memoryAct{request: r, until: now.Add(RunningFor)}
	m.perName[a.Operator]++
	return New, Answer{}, nil
}

// Finish implements [Store].
func (m *Memory) Finish(_ context.Context, a Act, answer Answer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if act, known := m.acts[a]; known && !act.done {
		act.done, act.answer, act.until = true, answer, m.now().Add(KeepAnswers)
	}
	return nil
}

// Abandon implements [Store].
func (m *Memory) Abandon(_ context.Context, a Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if act, known := m.acts[a]; known && !act.done {
		m.drop(a)
	}
	return nil
}
