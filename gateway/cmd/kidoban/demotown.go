package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/chatcore"
	"github.com/kidoban/kidoban/chatcore/chat"
	"github.com/kidoban/kidoban/chatcore/password"
	"github.com/kidoban/kidoban/chatcore/world"
)

// cheapHash is the smallest argon2id there is but for a little. It protects
// nobody's password; it keeps the hash from being what the demo measures.
var cheapHash = password.Cost{Memory: 64, Time: 1, Threads: 1}

// settle makes the people of a chat in file and notes them in list, or reads list
// where an earlier demo made them.
func settle(ctx context.Context, file, list string, accounts int, seed uint64) ([]chatcore.SeededAccount, error) {
	if _, err := os.Stat(file); err == nil {
		return readAccounts(list)
	}
	town, err := seedChat(ctx, file, chatcore.SeedOptions{Organizations: min(20, accounts/world.PeopleMin), Accounts: accounts, Seed: seed})
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(list, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return town, errors.Join(chatcore.WriteAccounts(out, town), out.Close())
}

func seedChat(ctx context.Context, file string, o chatcore.SeedOptions) (_ []chatcore.SeededAccount, err error) {
	svc, err := chatcore.Open(ctx, chatcore.Config{Path: file, PasswordCost: cheapHash})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	return svc.Seed(ctx, o)
}

// readAccounts reads what chatcore.WriteAccounts wrote.
func readAccounts(file string) ([]chatcore.SeededAccount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the people of an earlier demo: %w", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = 7
	var all []chatcore.SeededAccount
	for {
		row, err := r.Read()
		switch {
		case errors.Is(err, io.EOF) && len(all) >= 2:
			return all, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%s holds no people: give the demo a new directory", file)
		case err != nil:
			return nil, fmt.Errorf("%s is not as the demo wrote it: give the demo a new directory", file)
		case row[2] == "account_id":
			continue
		}
		id, err := strconv.ParseInt(row[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not as the demo wrote it: give the demo a new directory", file)
		}
		all = append(all, chatcore.SeededAccount{Organization: row[0], ID: chat.AccountID(id), Name: row[3], Email: row[4], Password: row[5], Language: row[6]})
	}
}

// pickFriends are the first two people of one organization, who therefore share
// the room of everybody; who read language, if there are such.
func pickFriends(town []chatcore.SeededAccount, language string) (one, two chatcore.SeededAccount) {
	for i := range town[1:] {
		if town[i].Language == language && town[i+1].Language == language && town[i].Organization == town[i+1].Organization &&
			(i == 0 || town[i-1].Organization != town[i].Organization) {
			return town[i], town[i+1]
		}
	}
	return town[0], town[1]
}

// seedOffice makes a world with an organization of people and others that have at
// least others accounts between them.
func seedOffice(ctx context.Context, file string, people, others int, seed uint64) (office, rest []chatcore.SeededAccount, err error) {
	o, err := officeWorld(people, others, seed)
	if err != nil {
		return nil, nil, err
	}
	town, err := seedChat(ctx, file, o)
	if err != nil {
		return nil, nil, err
	}
	sizes := make(map[string]int)
	big := town[0].Organization
	for _, a := range town {
		if sizes[a.Organization]++; sizes[a.Organization] > sizes[big] {
			big = a.Organization
		}
	}
	for _, a := range town {
		switch {
		case a.Organization != big:
			rest = append(rest, a)
		case len(office) < people: // the others of that company are on holiday
			office = append(office, a)
		}
	}
	if len(office) < people || len(rest) < others {
		return nil, nil, fmt.Errorf("the world of seed %d has an office of %d and %d others, want %d and %d: try another seed", seed, len(office), len(rest), people, others)
	}
	return office, rest, nil
}

// officeWorld finds how many accounts a world needs so that its largest
// organization is large enough: how accounts are shared out is up to the seed.
func officeWorld(people, others int, seed uint64) (chatcore.SeedOptions, error) {
	o := chatcore.SeedOptions{Organizations: 4, Accounts: max(2*people, people+others, 4*world.PeopleMin), Seed: seed}
	for o.Accounts <= world.AccountsMax {
		w, err := world.New(world.Options{Organizations: o.Organizations, Accounts: o.Accounts, Seed: o.Seed, Now: time.Now()})
		if err != nil {
			return o, err
		}
		largest := 0
		for _, org := range w {
			largest = max(largest, len(org.People))
		}
		if largest >= people && o.Accounts-largest >= others {
			return o, nil
		}
		o.Accounts += o.Accounts / 4
	}
	return o, fmt.Errorf("an office of %d people beside %d others is more than the chat can be filled with (%d accounts): take fewer people, or a shorter list", people, others, world.AccountsMax)
}

// copyChat copies the file of a chat that is closed. What a crash would leave
// beside it means that it is not.
func copyChat(from, to string) (err error) {
	if info, err := os.Stat(from + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("copying %s: it is open", from)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
