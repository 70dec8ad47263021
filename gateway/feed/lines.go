package feed

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

const maxLine = 64 << 10 // bytes, its end included

var errLong = fmt.Errorf("longer than 64 KiB")

// lines reads a text line by line.
type lines struct {
	r     *bufio.Reader
	begun bool
}

func newLines(r io.Reader) lines { return lines{r: bufio.NewReaderSize(r, maxLine)} }

// next returns the next line without blanks around it, until the call that follows.
// The error is errLong for a line that is too long, of which nothing is kept. The last
// line needs no end.
func (l *lines) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		for err == bufio.ErrBufferFull {
			_, err = l.r.ReadSlice('\n')
		}
		if err == nil || err == io.EOF {
			err = errLong
		}
		return nil, err
	}
	if err != nil && (err != io.EOF || len(line) == 0) {
		return nil, err
	}
	if !l.begun {
		l.begun = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return bytes.TrimSpace(line), nil
}
