import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;

/** RunOnnx WEIGHTS 1,3,64,64 INPUT OUTPUT: runs a graph on float32 numbers (little endian, C order), as deepImageJ does. */
public class RunOnnx {
    public static void main(String[] args) throws Exception {
        long[] shape = Arrays.stream(args[1].split(",")).mapToLong(Long::parseLong).toArray();
        FloatBuffer input = ByteBuffer.wrap(Files.readAllBytes(Path.of(args[2]))).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        OrtEnvironment environment = OrtEnvironment.getEnvironment();
        OrtSession.SessionOptions options = new OrtSession.SessionOptions();
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.BASIC_OPT);
        try (OrtSession session = environment.createSession(args[0], options);
                OnnxTensor tensor = OnnxTensor.createTensor(environment, input, shape);
                OrtSession.Result result = session.run(Map.of(session.getInputNames().iterator().next(), tensor))) {
            FloatBuffer output = ((OnnxTensor) result.get(0)).getFloatBuffer();
            ByteBuffer bytes = ByteBuffer.allocate(4 * output.remaining()).order(ByteOrder.LITTLE_ENDIAN);
            bytes.asFloatBuffer().put(output);
            Files.write(Path.of(args[3]), bytes.array());
        }
    }
}
