package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Programs that people use, at work in a mount and in a bare directory: what they
// print and leave is the same. Each is a shell script; its directory is its own.
var atWork = map[string]string{
	"git": `
		export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@x
		export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z'
		git init -q -b main origin
		cd origin
		for d in a b c; do mkdir -p $d/$d; for i in $(seq 40); do echo "$d $i" > $d/$d/$i; done; done
		git add . && git commit -qm one
		git mv a z && sed -i s/b/B/ b/b/* && rm -r c && git add -A && git commit -qm two
		git checkout -q -b side HEAD~ && echo more > c/c/more && git add . && git commit -qm three
		git checkout -q main && git merge -q -m merged side
		cd ..
		git clone -q origin clone && cd clone
		git status --short --branch
		echo changed > z/a/1; git status --short; git diff; git stash -q; git stash pop -q
		git gc -q --aggressive --prune=now && git fsck --full --strict
		git log --format='%H %s'
		git worktree add -q ../tree side && cat ../tree/c/c/more
		git bundle create -q ../all.bundle --all && git bundle verify -q ../all.bundle
		git reset -q --hard HEAD~1 && git clean -qfdx && git status --short`,
	"tar": `
		mkdir -p in/deep/er && cd in
		echo text > f && ln f deep/hard && ln -s ../f deep/soft && mkfifo deep/er/fifo && truncate -s 1M sparse && echo end >> sparse
		printf x > 'a name
with a newline' && chmod 4755 f && touch -d 2001-02-03T04:05:06.789 f && setfattr -n user.k -v v f
		setfacl -m u:1001:rw deep/hard && setfacl -d -m g:1001:rx deep && mknod dev c 1 3 && chown 1001:1002 deep/er
		cd .. && tar --xattrs --acls --selinux -cSf all.tar in && tar --xattrs -df all.tar -C . && mkdir out && tar --xattrs --xattrs-include='*' --acls -xpf all.tar -C out
		cd out && touch -d 2001-02-03T04:05:06.789 ../when && test ! in/f -nt ../when && test ! in/f -ot ../when
		getfattr -R -d -m user. . | sort; getfacl -R . | sort
		find . -printf '%p %y %m %U:%G %n %l\n' | sort
		cp -a in copy && diff -r --no-dereference in copy -x fifo -x dev && rm -r in && find . | sort`,
	"make": `
		cat > main.c <<-'X'
			#include <stdio.h>
			int twice(int);
			int main(void) { printf("%d\n", twice(21)); return 0; }
		X
		echo 'int twice(int n) { return 2 * n; }' > twice.c
		printf 'prog: main.o twice.o\n\tcc -o $@ $^\n%%.o: %%.c\n\tcc -c -o $@ $<\nclean:\n\trm -f *.o prog\n' > Makefile
		make && ./prog && make && touch -d 2001-01-01 twice.o && make && ./prog && make clean && ls`,
	"sqlite": `
		for mode in delete wal truncate persist; do
			sqlite3 $mode.db "pragma journal_mode=$mode; create table t(a integer primary key, b blob);
				begin; with recursive n(i) as (select 1 union all select i+1 from n where i<2000) insert into t select i, hex(i)||'-'||hex(i*i) from n; commit;
				update t set b=b||b where a%3=0; delete from t where a%7=0; pragma integrity_check; select count(*), sum(length(b)) from t; vacuum; pragma integrity_check;"
			for i in 1 2 3 4; do sqlite3 -cmd '.timeout 20000' $mode.db "begin immediate; insert into t(b) select b from t limit 100; commit;" & done; wait
			sqlite3 $mode.db "select count(*) from t; pragma integrity_check;"
		done
		ls | grep -v -e -wal -e -shm -e journal`,
	"rsync": `
		mkdir -p src/a/b && cd src && for i in $(seq 50); do echo $i > a/$i; ln a/$i a/b/$i; done && truncate -s 300K big && echo x >> big && ln -s a l && cd ..
		rsync -aHAXS src/ dst/ && rsync -aHAXS --delete -i src/ dst/ && echo more >> src/a/1 && rm src/a/2 && mv src/a/3 src/a/three
		rsync -aHAXS --inplace --delete --out-format=%n src/ dst/ | grep -v '/$' | sort
		diff -r src dst && find dst -printf '%P %y %n %s\n' | grep -v ' d ' | sort`,
	"mv-and-friends": `
		umask 027; mkdir a && for i in $(seq 200); do : > a/f$i; done
		mkdir b && mv a/* b/ && ls a | wc -l && ls b | wc -l && cp -al b c && rm -rf b && stat -c '%n %h' c/* | sort | head -3
		install -m 4755 /bin/true t && ./t && stat -c %a t && dd if=/dev/zero of=t bs=1 count=1 conv=notrunc status=none && stat -c %a t
		split -n 10 /bin/true part. && cat part.* | cmp - /bin/true && sort -o part.aa part.aa && shred -u part.ab && ls part.* | wc -l
		find . -type f -exec chmod 600 {} + && find . -type f ! -perm 600 | wc -l
		flock lock sh -c 'flock -n lock true || echo locked'; mktemp -p . -u XXXX | wc -c
		( set -C; : > c/f1 ) 2>/dev/null || echo 'noclobber'; ln -sfn c link && ls link/ | wc -l && rmdir a && find c -delete && ls`,
}

func TestProgramsAtWork(t *testing.T) {
	bare := publicDir(t)
	mounts := map[string]*mounted{}
	for name, s := range modes {
		mounts[name] = mount(t, s)
	}
	for name, script := range atWork {
		t.Run(name, func(t *testing.T) {
			want := shell(t, bare, name, script)
			for mode, m := range mounts {
				t.Run("mode="+mode, func(t *testing.T) {
					if diff := differing(want, shell(t, m.dir, name, script)); diff != "" {
						t.Errorf("-bare +mount:\n%s", diff)
					}
				})
			}
		})
	}
}

// shell runs a script in a new directory below dir; what fails in it ends it.
func shell(t *testing.T, dir, name, script string) string {
	t.Helper()
	sub := dir + "/" + name
	mustDo(t, os.Mkdir(sub, 0o755))
	c := exec.Command("bash", "-c", "set -eu -o pipefail; umask 022;"+script)
	c.Dir = sub
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "HOME="+sub)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Fatalf("%s in %s: %v\n%s", name, dir, err, &out)
	}
	return strings.ReplaceAll(out.String(), dir, "DIR")
}

// fio writes in several ways and verifies what it reads back.
func TestFio(t *testing.T) {
	eachMode(t, func(t *testing.T, s setup) {
		m := mount(t, s)
		defer m.rollOver(50e6)()
		for name, args := range map[string]string{
			"sync":   "--ioengine=psync --rw=randwrite --bsrange=512-64k --fsync=50",
			"mmap":   "--ioengine=mmap --rw=randwrite --bs=4k",
			"direct": "--ioengine=libaio --direct=1 --iodepth=8 --rw=randwrite --bs=16k",
			"append": "--ioengine=psync --rw=write --bs=1000 --file_append=1",
			"vector": "--ioengine=pvsync2 --rw=randwrite --bsrange=1k-16k",
			"uring":  "--ioengine=io_uring --iodepth=8 --rw=randwrite --bs=4k",
		} {
			t.Run("engine="+name, func(t *testing.T) {
				args := append(strings.Fields(args), "--name="+name, "--directory="+m.dir, fmt.Sprintf("--size=%dM", 4*soak()),
					"--numjobs=2", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7", "--fallocate=none", "--verify_state_save=0", "--minimal")
				if out, err := exec.Command("fio", args...).CombinedOutput(); err != nil {
					t.Errorf("fio %v: %v\n%s", args, err, out)
				}
			})
		}
	})
}

// stress-ng's stressors of file systems, with their own checks, end on a mount as
// they end on a bare directory.
func TestStress(t *testing.T) {
	stressors := []string{"filename", "dir", "dirmany", "rename", "link", "symlink", "xattr", "flock", "lockf", "lockofd", "locka", "fallocate",
		"hdd", "mmap", "access", "chmod", "chown", "chattr", "copy-file", "dentry", "fiemap", "file-ioctl", "filerace", "fpunch", "fsize", "fstat", "getdent",
		"handle", "inode-flags", "iomix", "metamix", "mknod", "open", "readahead", "revio", "seek", "sendfile", "splice", "sync-file",
		"unlink", "utime", "verity", "acl", "aio", "fcntl", "dup", "eventfd", "leases"}
	if soak() == 1 {
		stressors = []string{"dir", "rename", "link", "symlink", "xattr", "flock", "lockf", "lockofd", "fallocate", "hdd", "mmap", "chmod", "chown",
			"dentry", "fstat", "getdent", "mknod", "open", "seek", "utime", "acl", "fpunch"}
	}
	bare := publicDir(t)
	mounts := map[string]*mounted{}
	for name, s := range modes {
		mounts[name] = mount(t, s)
	}
	known := stressorsOf(t)
	for _, name := range stressors {
		if !known[name] {
			continue // of a newer stress-ng than this one
		}
		t.Run(name, func(t *testing.T) {
			want := stress(t, bare, name)
			for mode, m := range mounts {
				t.Run("mode="+mode, func(t *testing.T) {
					if got := stress(t, m.dir, name); got != want {
						t.Errorf("ended with %s, on the bare directory with %s", got, want)
					}
				})
			}
		})
	}
}

func stressorsOf(t *testing.T) map[string]bool {
	t.Helper()
	out, err := exec.Command("stress-ng", "--stressors").Output()
	mustDo(t, err)
	known := map[string]bool{}
	for _, name := range strings.Fields(string(out)) {
		known[name] = true
	}
	return known
}

// stress runs a stressor on dir and returns how it ended, and what it complained
// of if it did.
func stress(t *testing.T, dir, name string) string {
	t.Helper()
	ops := 20 * soak()
	switch name {
	case "link", "symlink": // of thousands each
		ops = soak()
	case "mmap", "fpunch", "fallocate":
		ops = 4 * soak()
	}
	args := []string{"--temp-path", dir, "--" + name, "2", "--" + name + "-ops", fmt.Sprint(ops), "--timeout", fmt.Sprint(soak()) + "s", "--verify", "-q"}
	switch name {
	case "hdd":
		args = append(args, "--hdd-bytes", "4M")
	case "mmap":
		args = append(args, "--mmap-file", "--mmap-bytes", "4M")
	case "fallocate":
		args = append(args, "--fallocate-bytes", "4M")
	}
	out, err := exec.Command("stress-ng", args...).CombinedOutput()
	if err == nil {
		return "ok"
	}
	t.Logf("stress-ng %v: %v\n%s", args, err, out)
	return err.Error()
}
