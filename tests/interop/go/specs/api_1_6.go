//go:build containerd_1_6

package main

import (
	customopts "github.com/containerd/containerd/v2/internal/cri/opts"
	"github.com/containerd/containerd/v2/pkg/oci"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mounts(config *runtime.ContainerConfig, extra []*runtime.Mount) oci.SpecOpts {
	return customopts.WithMounts(pretended{}, config, extra, "")
}

func podNamespaces(security *runtime.LinuxContainerSecurityContext) oci.SpecOpts {
	return customopts.WithPodNamespaces(security, sandboxPid, sandboxPid)
}

func annotations(config *runtime.PodSandboxConfig, sandbox bool) []oci.SpecOpts {
	kind := "container"
	if sandbox {
		kind = "sandbox"
	}
	opts := []oci.SpecOpts{
		customopts.WithAnnotation("io.kubernetes.cri.container-type", kind),
		customopts.WithAnnotation("io.kubernetes.cri.sandbox-id", pod),
		customopts.WithAnnotation("io.kubernetes.cri.sandbox-namespace", config.GetMetadata().GetNamespace()),
		customopts.WithAnnotation("io.kubernetes.cri.sandbox-uid", config.GetMetadata().GetUid()),
		customopts.WithAnnotation("io.kubernetes.cri.sandbox-name", config.GetMetadata().GetName()),
	}
	if sandbox {
		return append(opts, customopts.WithAnnotation("io.kubernetes.cri.sandbox-log-directory", config.GetLogDirectory()))
	}
	return append(opts, customopts.WithAnnotation("io.kubernetes.cri.container-name", "web"),
		customopts.WithAnnotation("io.kubernetes.cri.image-name", "docker.io/library/busybox:latest"))
}
