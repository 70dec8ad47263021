package policies

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/kidoban/kidoban/rules"
)

// LoadPolicyWithHistory is as [LoadPolicy], but where policy.yaml does not check the
// version that h remembers as good stays in force: left then says why, and which.
func LoadPolicyWithHistory(dir fs.FS, h rules.History) (p Policy, left, err error) {
	data, left, err := lastGood(dir, "policy.yaml", h, func(data []byte) error {
		_, err := parsePolicy(data)
		return err
	})
	if err != nil {
		return Policy{}, nil, err
	}
	if p, err = parsePolicy(data); err != nil { // it was checked
		return Policy{}, nil, err
	}
	return p, left, nil
}

// LoadBackendWithHistory is as [LoadBackend] with the folder backends of dir, but
// where the preset does not check the version that h remembers as good stays in
// force: left then says why, and which.
func LoadBackendWithHistory(name string, dir fs.FS, h rules.History) (b *Backend, left, err error) {
	if err := checkName(name); err != nil {
		return nil, nil, err
	}
	file := "backends/" + name + ".yaml"
	data, left, err := lastGood(dir, file, h, func(data []byte) error {
		_, err := parseBackend(name, file, data)
		return err
	})
	if err == nil && data == nil {
		b, err = LoadBackend(name, nil)
		return b, left, err
	}
	if err != nil {
		return nil, nil, err
	}
	b, err = parseBackend(name, file, data)
	return b, left, err
}

// lastGood reads a file of dir that passes check, or else the version of it that h
// remembers; left says then why. data is nil where there is no file.
func lastGood(dir fs.FS, file string, h rules.History, check func([]byte) error) (data []byte, left, err error) {
	data, err = fs.ReadFile(dir, file)
	if errors.Is(err, fs.ErrNotExist) {
		_, _, had := h.LastGood(file)
		if _, gone := fs.Stat(dir, "."); gone == nil || !had { // else the whole folder is away
			return nil, h.Forget(file), nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	} else if err = check(data); err == nil {
		if err := h.Good(file, data); err != nil {
			left = fmt.Errorf("%s: is in force, but not remembered for the day it goes bad: %w", file, err)
		}
		return data, left, nil
	}
	old, hash, ok := h.LastGood(file)
	if !ok {
		return nil, nil, err
	}
	if oldErr := check(old); oldErr != nil {
		return nil, nil, fmt.Errorf("%w; its version %.12s cannot stay in force: %w", err, hash, oldErr)
	}
	return old, fmt.Errorf("%w; its version %.12s stays in force", err, hash), nil
}
