// A frame of the camera as a PNG file.

/** Shows what the camera sees; returns a File, or null if the user cancels. */
export async function takeFrame(dialog, name) {
  const video = dialog.querySelector("video");
  const stream = await navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } },
  });
  try {
    video.srcObject = stream;
    dialog.returnValue = "";
    dialog.showModal();
    await video.play();
    dialog.querySelector("#take").onclick = () => dialog.close("take");
    dialog.querySelector("#cancel").onclick = () => dialog.close("");
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "take" ? await capture(video, name) : null;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    if (dialog.open) dialog.close();
  }
}

async function capture(video, name) {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], name, { type: "image/png" });
}
