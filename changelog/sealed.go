package changelog

import (
	"path"
	"strconv"
	"strings"
	"time"
)

// Names below the changelogs directory.
const (
	liveName     = "CHANGELOG"     // the changelog being written
	nextName     = "CHANGELOG.new" // its successor, for the moment of a rollover
	htimeDir     = "htime"         // the indexes
	sealedPrefix = "CHANGELOG."    // of a sealed changelog, then its stamp
	emptyPrefix  = "changelog."    // in an index: the slice had no record, there is no file
)

// dayDir is the directory, below the changelogs directory, of the changelog with
// the given stamp: its UTC date as YYYY/MM/DD.
func dayDir(stamp int64) string {
	return time.Unix(stamp, 0).UTC().Format("2006/01/02")
}

// sealedName is the path of a sealed changelog below the changelogs directory.
func sealedName(stamp int64) string {
	return path.Join(dayDir(stamp), sealedPrefix+strconv.FormatInt(stamp, 10))
}

// parseSealedBase reads the stamp of a changelog's base name; empty says that
// the name is that of a slice without records, which has no file.
func parseSealedBase(base string) (stamp int64, empty, ok bool) {
	digits, found := strings.CutPrefix(base, sealedPrefix)
	if !found {
		digits, empty = strings.CutPrefix(base, emptyPrefix)
		if !empty {
			return 0, false, false
		}
	}
	stamp, ok = parseStamp(digits)
	return stamp, empty, ok
}

// parseStamp reads unix seconds as names have them: digits only.
func parseStamp(digits string) (int64, bool) {
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, err == nil
}
