package daemon

import (
	"net/http"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/georep/georep/replicator/session"
)

// NewVolume asks for a volume.
type NewVolume struct {
	Name   string          `json:"name"`
	Bricks []session.Brick `json:"bricks"` // Path, and Mountpoint or "" for the default
}

func (d *Daemon) getVolumes(*http.Request) (any, error) {
	all, err := d.store.Volumes()
	if err != nil {
		return nil, err
	}
	out := make([]*VolumeStatus, 0, len(all))
	for _, v := range all {
		out = append(out, d.volumeStatus(v))
	}
	return out, nil
}

func (d *Daemon) getVolume(r *http.Request) (any, error) {
	v, err := d.store.Volume(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	return d.volumeStatus(v), nil
}

// postVolume makes the bricks of a new volume bricks with one volume id: that of
// the first that has one.
func (d *Daemon) postVolume(r *http.Request) (any, error) {
	var req NewVolume
	if err := read(r, &req); err != nil {
		return nil, err
	}
	if err := session.CheckName("volume", req.Name); err != nil {
		return nil, err
	}
	d.ops.Lock()
	defer d.ops.Unlock()
	if _, err := d.store.Volume(req.Name); err == nil {
		return nil, session.Errorf(session.Precondition, "volume %s is there already", req.Name)
	}
	v := &session.Volume{Name: req.Name, Bricks: req.Bricks}
	for i := range v.Bricks {
		b := &v.Bricks[i]
		if !filepath.IsAbs(b.Path) {
			return nil, session.Errorf(session.Usage, "brick %q: want an absolute path", b.Path)
		}
		path, id, err := d.opt.Host.PrepareBrick(b.Path, v.ID)
		if err != nil {
			return nil, err
		}
		b.Path = path
		if v.ID == uuid.Nil {
			v.ID = id
		}
		if b.Mountpoint == "" {
			b.Mountpoint = filepath.Join(d.opt.Mounts, v.Name)
			if len(v.Bricks) > 1 {
				b.Mountpoint = filepath.Join(b.Mountpoint, filepath.Base(path))
			}
		}
		if b.Mountpoint = filepath.Clean(b.Mountpoint); !filepath.IsAbs(b.Mountpoint) {
			return nil, session.Errorf(session.Usage, "mountpoint %q: want an absolute path", b.Mountpoint)
		}
	}
	if err := d.store.CreateVolume(v); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "volume.created", Text: "volume " + v.Name + " is created"})
	return d.volumeStatus(v), nil
}

func (d *Daemon) deleteVolume(r *http.Request) (any, error) {
	d.ops.Lock()
	defer d.ops.Unlock()
	name := r.PathValue("name")
	if err := d.store.DeleteVolume(name); err != nil {
		return nil, err
	}
	d.tell(session.Event{Kind: "volume.deleted", Text: "volume " + name + " is deleted"})
	return nil, nil
}

func (d *Daemon) postVolumeStart(r *http.Request) (any, error) {
	return nil, d.startVolume(r.Context(), r.PathValue("name"))
}

func (d *Daemon) postVolumeStop(r *http.Request) (any, error) {
	return nil, d.stopVolume(r.PathValue("name"), r.FormValue("force") != "")
}
